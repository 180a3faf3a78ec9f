package main

import (
	"bufio"
	"encoding/json"
	"io"
)

// event is one line of go tool test2json; see its documentation.
type event struct {
	Action  string
	Test    string
	Output  string
	Elapsed float64 // seconds
}

// readEvents sends each event of r on, and returns when r has ended. A line that is
// no event counts as output.
func readEvents(r io.Reader, events chan<- event) {
	for in := bufio.NewReader(r); ; {
		line, err := in.ReadBytes('\n')
		if len(line) > 0 {
			var e event
			if json.Unmarshal(line, &e) != nil || e.Action == "" {
				e = event{Action: "output", Output: string(line)}
			}
			events <- e
		}
		if err != nil {
			return
		}
	}
}
