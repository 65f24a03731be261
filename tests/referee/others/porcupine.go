// Has porcupine judge logs of a compare-and-set register: for each file a line FILE<TAB>verdict<TAB>microseconds of the search.
package main

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/anishathalye/porcupine"
)

const (
	read = iota
	write
	compareAndSet
)

type call struct {
	op       int
	old, new int
}

type answer struct {
	known bool
	read  int
	fits  bool
}

var register = porcupine.Model{
	Init: func() interface{} { return -1 },
	Step: func(state, input, output interface{}) (bool, interface{}) {
		held, call, answer := state.(int), input.(call), output.(answer)
		switch call.op {
		case read:
			return !answer.known || answer.read == held, held
		case write:
			return true, call.new
		}
		if call.old != held {
			return !answer.known || !answer.fits, held
		}
		return !answer.known || answer.fits, call.new
	},
}

func number(text string) int {
	if text == "nil" {
		return -1
	}
	n, err := strconv.Atoi(strings.Trim(text, "[]"))
	if err != nil {
		panic(err)
	}
	return n
}

func events(path string) []porcupine.Event {
	file, err := os.Open(path)
	if err != nil {
		panic(err)
	}
	defer file.Close()
	var events []porcupine.Event
	open := map[int]int{}
	lines := bufio.NewScanner(file)
	for id := 0; lines.Scan(); {
		words := strings.Fields(strings.TrimPrefix(lines.Text(), "INFO  jepsen.util - "))
		process := number(words[0])
		if words[1] == ":invoke" {
			var asked call
			switch words[2] {
			case ":read":
				asked = call{op: read}
			case ":write":
				asked = call{op: write, new: number(words[3])}
			case ":cas":
				asked = call{op: compareAndSet, old: number(words[3]), new: number(words[4])}
			}
			events = append(events, porcupine.Event{ClientId: process, Kind: porcupine.CallEvent, Value: asked, Id: id})
			open[process] = id
			id++
			continue
		}
		if words[1] == ":info" {
			continue
		}
		told := answer{known: true, fits: words[1] == ":ok"}
		if words[2] == ":read" {
			told.read = number(words[3])
		}
		events = append(events, porcupine.Event{ClientId: process, Kind: porcupine.ReturnEvent, Value: told, Id: open[process]})
		delete(open, process)
	}
	for process, id := range open {
		events = append(events, porcupine.Event{ClientId: process, Kind: porcupine.ReturnEvent, Value: answer{}, Id: id})
	}
	return events
}

func main() {
	for _, path := range os.Args[1:] {
		events := events(path)
		began := time.Now()
		verdict := "unknown"
		switch porcupine.CheckEventsTimeout(register, events, 120*time.Second) {
		case porcupine.Ok:
			verdict = "linearizable"
		case porcupine.Illegal:
			verdict = "not-linearizable"
		}
		fmt.Printf("%s\t%s\t%d\n", path, verdict, time.Since(began).Microseconds())
	}
}
