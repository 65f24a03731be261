%% One BEAM node whose `global` and `pg` can be called over HTTP: the system under test is OTP's own, this only answers the door.
%%
%%   erl … -run registry_node start ADDRESS PORT REDIAL_MS PEER,PEER,…
%%
%% It dials each peer until that answers once. After that it dials nobody, as OTP does by itself, unless REDIAL_MS is above 0: then
%% it dials again whom it has lost, that often. Owners and members are processes, named by what tells a process of one node's one
%% life from all others: NODE/ID.SERIAL.CREATION. Arguments stand in the query, answers are JSON.
-module(registry_node).
-export([start/1]).

start([Address, Port, Redial, Peers]) ->
    process_flag(trap_exit, true),
    holders = ets:new(holders, [named_table, public]),
    members = ets:new(members, [named_table, public]),
    killed = ets:new(killed, [named_table, public]),
    {ok, _} = pg:start(pg),
    {ok, Ip} = inet:parse_address(Address),
    Options = [binary, {ip, Ip}, {packet, http_bin}, {active, false}, {reuseaddr, true}, {nodelay, true}, {backlog, 256}],
    {ok, Listener} = gen_tcp:listen(list_to_integer(Port), Options),
    Others = [list_to_atom(Peer) || Peer <- string:lexemes(Peers, ","), Peer =/= atom_to_list(node())],
    [spawn_link(fun() -> dial(Peer, list_to_integer(Redial)) end) || Peer <- Others],
    accept(Listener).

dial(Peer, Redial) ->
    case net_kernel:connect_node(Peer) of
        true when Redial =:= 0 -> ok;
        true -> timer:sleep(Redial), dial(Peer, Redial);
        _ -> timer:sleep(max(Redial, 200)), dial(Peer, Redial)
    end.

%% ---- HTTP/1.1, as much of it as one client needs

accept(Listener) ->
    {ok, Socket} = gen_tcp:accept(Listener),
    Server = spawn(fun() -> receive go -> serve(Socket) end end),
    ok = gen_tcp:controlling_process(Socket, Server),
    Server ! go,
    accept(Listener).

serve(Socket) ->
    case gen_tcp:recv(Socket, 0) of
        {ok, {http_request, _, {abs_path, Uri}, _}} -> headers(Socket, Uri, 0);
        _ -> gen_tcp:close(Socket)
    end.

headers(Socket, Uri, Length) ->
    case gen_tcp:recv(Socket, 0) of
        {ok, {http_header, _, 'Content-Length', _, Value}} -> headers(Socket, Uri, binary_to_integer(Value));
        {ok, {http_header, _, _, _, _}} -> headers(Socket, Uri, Length);
        {ok, http_eoh} ->
            ok = inet:setopts(Socket, [{packet, raw}]),
            _ = Length > 0 andalso gen_tcp:recv(Socket, Length),
            {Code, Body} = answer(Uri),
            Head = io_lib:format("HTTP/1.1 ~b -\r\ncontent-length: ~b\r\n\r\n", [Code, iolist_size(Body)]),
            _ = gen_tcp:send(Socket, [Head, Body]),
            _ = inet:setopts(Socket, [{packet, http_bin}]),
            serve(Socket);
        _ -> gen_tcp:close(Socket)
    end.

answer(Uri) ->
    {Path, Query} = case binary:split(Uri, <<"?">>) of
        [P, Q] -> {P, maps:from_list(uri_string:dissect_query(Q))};
        [P] -> {P, #{}}
    end,
    try {200, json(call(Path, Query))}
    catch Class:Why -> {500, json(text({Class, Why}))}
    end.

%% ---- what can be asked

call(<<"/state">>, _) ->
    #{nodes => length(nodes()), version => list_to_binary(erlang:system_info(otp_release)),
      ticktime => net_kernel:get_net_ticktime(), killed => [Holder || {Holder} <- ets:tab2list(killed)]};
%% A process that can own names or be a member, here.
call(<<"/holder">>, _) ->
    #{holder => holder()};
call(<<"/register">>, #{<<"name">> := Name, <<"holder">> := Holder}) ->
    [{_, Pid}] = ets:lookup(holders, Holder),
    %% By itself `global` resolves a conflict by killing one of the two.
    case global:register_name(Name, Pid) of
        yes -> #{granted => true, holder => Holder};
        no -> #{granted => false, holder => who(global:whereis_name(Name))}
    end;
call(<<"/unregister">>, #{<<"name">> := Name}) ->
    Holder = who(global:whereis_name(Name)),
    _ = global:unregister_name(Name),
    #{holder => Holder};
call(<<"/whereis">>, #{<<"name">> := Name}) ->
    #{holder => who(global:whereis_name(Name))};
call(<<"/join">>, #{<<"group">> := Group, <<"member">> := Member, <<"holder">> := Holder}) ->
    [{_, Pid}] = ets:lookup(holders, Holder),
    case ets:insert_new(members, {{Group, Member}, Holder}) of
        true -> ok = pg:join(Group, Pid), #{new => true, holder => Holder};
        false -> #{new => false, holder => ets:lookup_element(members, {Group, Member}, 2)}
    end;
%% `pg` lets a node end what joined at that node, and nothing else: a process of another node can only be killed.
call(<<"/leave">>, #{<<"group">> := Group, <<"holders">> := Wanted}) ->
    Holders = binary:split(Wanted, <<",">>, [global]),
    Pids = [Pid || Pid <- lists:usort(pg:get_members(Group)), lists:member(who(Pid), Holders)],
    [leave(Group, Pid) || Pid <- Pids],
    #{left => length(Pids)};
call(<<"/members">>, #{<<"group">> := Group}) ->
    #{members => [who(Pid) || Pid <- pg:get_members(Group)]};
call(<<"/view">>, _) ->
    #{names => maps:from_list([{Name, who(global:whereis_name(Name))} || Name <- global:registered_names()]),
      groups => maps:from_list([{Group, [who(Pid) || Pid <- pg:get_members(Group)]} || Group <- pg:which_groups()])};
call(<<"/dial">>, #{<<"node">> := Node}) ->
    #{connected => net_kernel:connect_node(binary_to_atom(Node)) =:= true}.

leave(Group, Pid) when node(Pid) =:= node() ->
    ets:match_delete(members, {{Group, '_'}, who(Pid)}),
    pg:leave(Group, Pid);
leave(_, Pid) -> exit(Pid, kill).

%% ---- processes that own names and are members

holder() ->
    Me = self(),
    spawn(fun() ->
        {Pid, Monitor} = spawn_monitor(fun() -> receive never -> ok end end),
        Holder = who(Pid),
        ets:insert(holders, {Holder, Pid}),
        Me ! {holder, self(), Holder},
        receive {'DOWN', Monitor, _, _, _} -> ok end,
        ets:match_delete(members, {'_', Holder}),
        ets:insert(killed, {Holder})
    end),
    receive {holder, _, Holder} -> Holder end.

who(undefined) -> null;
who(Pid) ->
    External = term_to_binary(Pid),
    <<Id:32, Serial:32, Creation:32>> = binary:part(External, byte_size(External), -12),
    text([node(Pid), Id, Serial, Creation], "~s/~b.~b.~b").

text(Term) -> text([Term], "~0tp").
text(Arguments, Format) -> unicode:characters_to_binary(io_lib:format(Format, Arguments)).

json(Map) when is_map(Map) ->
    [${, lists:join($,, [[json(key(Key)), $:, json(Value)] || {Key, Value} <- maps:to_list(Map)]), $}];
json(List) when is_list(List) -> [$[, lists:join($,, [json(Item) || Item <- List]), $]];
json(Word) when Word =:= true; Word =:= false; Word =:= null -> atom_to_binary(Word);
json(Number) when is_integer(Number) -> integer_to_binary(Number);
json(Text) when is_binary(Text) -> [$", [escaped(Char) || <<Char/utf8>> <= Text], $"].

key(Key) when is_atom(Key) -> atom_to_binary(Key);
key(Key) -> Key.

escaped($") -> "\\\"";
escaped($\\) -> "\\\\";
escaped(Char) when Char < 32 -> io_lib:format("\\u~4.16.0b", [Char]);
escaped(Char) -> <<Char/utf8>>.
