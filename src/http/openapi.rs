//! `/openapi.json`, put together from what the handlers declare.

use axum::body::Bytes;
use utoipa::ToSchema;
use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::path::{Operation, Parameter, ParameterBuilder, ParameterIn, PathItem, Paths};
use utoipa::openapi::schema::{ObjectBuilder, Schema, Type};
use utoipa::openapi::{Components, InfoBuilder, OpenApi, OpenApiBuilder, RefOr, Required};

use crate::wire::body::ProblemBody;

/// The description of the API, while routes are being added.
pub struct Document(OpenApi);

type Schemas = Vec<(String, RefOr<Schema>)>;

impl Document {
    pub fn new() -> Self {
        let info = InfoBuilder::new()
            .title("Quorate")
            .version(env!("CARGO_PKG_VERSION"))
            .description(Some(
                "A replicated registry of names and groups in two modes: gossip (ap) and Raft (cp). \
                 The paths under /v1/{mode} answer without the mode too, for the server's default one. \
                 Every answer of 400 and above is application/problem+json.",
            ))
            .build();
        let mut components = Components::new();
        add_schema::<ProblemBody>(&mut components);
        Self(OpenApiBuilder::new().info(info).components(Some(components)).build())
    }

    /// Adds routes that are mounted as they are.
    pub fn add(&mut self, schemas: Schemas, paths: Paths) {
        for (path, mut item) in paths.paths {
            head_all(&mut item, "Quorate-Node", "The node that answers.", |_| true);
            head_all(&mut item, "Retry-After", "In seconds.", |status| matches!(status, "429" | "503"));
            head_all(&mut item, "Location", "The same call at the leader.", |status| status == "307");
            self.0.paths.paths.entry(path).or_default().merge_operations(item);
        }
        self.0.components.get_or_insert_default().schemas.extend(schemas);
    }

    /// Adds routes that are mounted once for each mode: one path with the mode as a parameter.
    pub fn add_for_modes(&mut self, schemas: Schemas, paths: Paths) {
        let mut prefixed = Paths::new();
        for (path, mut item) in paths.paths {
            head_all(&mut item, "Quorate-Mode", "Which registry answers.", |_| true);
            let answers = |status: &str| status.starts_with('2');
            head_all(&mut item, "Quorate-Revision", "How far the answering state was; a watch has none.", answers);
            head_all(&mut item, "Quorate-Peers", "`ap`: peers in reach, of those known: `2/3`.", answers);
            head_all(&mut item, "Quorate-Acks", "With `w`: how many nodes have it, of how many: `1/2`.", answers);
            head_all(
                &mut item,
                "Quorate-Staleness-Ms",
                "`ap` and `stale`: since when this node has not heard from everyone, resp. from the leader.",
                answers,
            );
            for operation in operations(&mut item) {
                operation.parameters.get_or_insert_default().insert(0, RefOr::T(mode()));
            }
            prefixed.paths.insert(format!("/v1/{{mode}}{path}"), item);
        }
        self.add(schemas, prefixed);
    }

    /// The document's text.
    pub fn finish(self) -> Bytes {
        let text = self.0.to_pretty_json().expect("the description is made of plain data");
        Bytes::from(text + "\n")
    }
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    [&mut item.get, &mut item.put, &mut item.post, &mut item.delete].into_iter().flatten()
}

/// Adds a header to the responses of certain statuses.
fn head_all(item: &mut PathItem, name: &str, description: &str, has_it: impl Fn(&str) -> bool) {
    for operation in operations(item) {
        for (status, response) in &mut operation.responses.responses {
            if let (RefOr::T(response), true) = (response, has_it(status)) {
                let schema = ObjectBuilder::new().schema_type(Type::String);
                let header = HeaderBuilder::new().schema(Some(schema)).description(Some(description));
                response.headers.insert(name.to_owned(), header.build().into());
            }
        }
    }
}

fn add_schema<T: ToSchema>(components: &mut Components) {
    let mut schemas = vec![(T::name().into_owned(), T::schema())];
    T::schemas(&mut schemas);
    components.schemas.extend(schemas);
}

fn mode() -> Parameter {
    let schema = ObjectBuilder::new().schema_type(Type::String).enum_values(Some(["cp", "ap"])).build();
    ParameterBuilder::new()
        .name("mode")
        .parameter_in(ParameterIn::Path)
        .required(Required::True)
        .description(Some("Which of the two registries."))
        .schema(Some(schema))
        .build()
}
