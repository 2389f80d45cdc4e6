//go:build goexperiment.jsonv2

package main

import (
	"bytes"
	"encoding/json/v2"
)

// The first readers are then the first version as the second carries it.
func init() {
	for at := range readers {
		readers[at].name = "go-jsonv2-as-v1-" + readers[at].name[len("go-"):]
	}
	readers = append(readers,
		reader{"go-jsonv2-map:value", func(raw []byte, out *bytes.Buffer) error {
			var value any
			err := json.Unmarshal(raw, &value)
			tree(value, out)
			return err
		}},
		reader{"go-jsonv2-struct:call", func(raw []byte, out *bytes.Buffer) error {
			var message Message
			err := json.Unmarshal(raw, &message, json.MatchCaseInsensitiveNames(true))
			call(message, out)
			return err
		}})
}
