package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"path/filepath"
)

// macTypes checks the types of this module as they are on macOS. It reads everything
// from source and compiles nothing, of what is not ours not even the functions'
// bodies: the build for macOS would compile all that we import once more.
func macTypes(ctx context.Context, w *work) error {
	cmd := exec.CommandContext(ctx, "go", "list", "-deps", "-json=ImportPath,Dir,GoFiles,ImportMap,Module", "./...")
	cmd.Env = w.environ("GOOS=darwin", "GOARCH=arm64", "CGO_ENABLED=0")
	cmd.Stderr = w
	list, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("go list: %w", err)
	}
	c := checker{files: token.NewFileSet(), done: map[string]*types.Package{"unsafe": types.Unsafe}}
	for d := json.NewDecoder(bytes.NewReader(list)); ; { // each after what it imports
		var p listed
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return errors.Join(c.errs...)
		} else if err != nil {
			return fmt.Errorf("go list: %w", err)
		}
		if err := c.check(&p); err != nil {
			return err
		}
	}
}

// listed is a package as go list has it.
type listed struct {
	ImportPath, Dir string
	GoFiles         []string
	ImportMap       map[string]string
	Module          *struct{ Main bool }
}

type checker struct {
	files *token.FileSet
	done  map[string]*types.Package
	errs  []error // in our packages
}

// imports finds what a package means by an import path.
type imports func(path string) (*types.Package, error)

func (f imports) Import(path string) (*types.Package, error) { return f(path) }

// check adds a package of which all imports have been added.
func (c *checker) check(p *listed) error {
	if p.ImportPath == "unsafe" {
		return nil
	}
	var parsed []*ast.File
	for _, name := range p.GoFiles {
		name = filepath.Join(p.Dir, name)
		text, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		f, err := parser.ParseFile(c.files, name, text, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		parsed = append(parsed, f)
	}
	ours := p.Module != nil && p.Module.Main
	config := types.Config{
		IgnoreFuncBodies: !ours,
		Sizes:            types.SizesFor("gc", "arm64"),
		Importer: imports(func(path string) (*types.Package, error) {
			if mapped, ok := p.ImportMap[path]; ok {
				path = mapped
			}
			if done := c.done[path]; done != nil {
				return done, nil
			}
			return nil, fmt.Errorf("%s is not listed", path)
		}),
		Error: func(err error) {
			if ours {
				c.errs = append(c.errs, err)
			}
		},
	}
	c.done[p.ImportPath], _ = config.Check(p.ImportPath, c.files, parsed, nil) // its errors have been told
	return nil
}
