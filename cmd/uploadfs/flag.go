package main

import "github.com/spf13/pflag"

// parsedValue is a flag's value that a function parses. Unlike that of pflag's Func, it
// remembers its text.
type parsedValue struct {
	text    string
	parse   func(string) error
	choices []string // that the shell completes
}

func (v *parsedValue) String() string { return v.text }
func (v *parsedValue) Type() string   { return "text" }

func (v *parsedValue) Set(text string) error {
	if err := v.parse(text); err != nil {
		return err
	}
	v.text = text
	return nil
}

// parsed adds a flag whose text parse reads. standard is its default.
func parsed(f *pflag.FlagSet, name, standard, usage string, choices []string, parse func(string) error) {
	f.Var(&parsedValue{text: standard, parse: parse, choices: choices}, name, usage)
}
