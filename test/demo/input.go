package main

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"unicode/utf8"
)

// input walks real source files: the Go distribution first, then the modules that this repository was built from.
type input struct {
	roots []root
	files int
	bytes int64
}

type root struct {
	label, dir string
	goOnly     bool
}

func findInput() (*input, error) {
	goroot, err := goEnv("GOROOT")
	if err != nil {
		return nil, err
	}
	modules, err := goEnv("GOMODCACHE")
	if err != nil {
		return nil, err
	}
	return &input{roots: []root{
		{"go/src", filepath.Join(goroot, "src"), false},
		{"go/test", filepath.Join(goroot, "test"), false},
		{"go/api", filepath.Join(goroot, "api"), false},
		{"go/lib", filepath.Join(goroot, "lib"), false},
		{"mod", modules, true},
	}}, nil
}

func goEnv(name string) (string, error) {
	out, err := exec.Command("go", "env", name).Output()
	if err != nil {
		return "", fmt.Errorf("go env %s: %w", name, err)
	}
	return strings.TrimSpace(string(out)), nil
}

// lines calls emit for every line of every text file until wantBytes of lines were handed out. Where the machine has less
// than that, the files are walked again under another label, which is said in the key.
func (in *input) lines(wantBytes int64, emit func(key, line []byte) error) error {
	for pass := 1; in.bytes < wantBytes; pass++ {
		before := in.bytes
		for _, r := range in.roots {
			label := r.label
			if pass > 1 {
				label = fmt.Sprintf("pass%d/%s", pass, label)
			}
			if err := in.walk(r, label, wantBytes, emit); err != nil {
				return err
			}
		}
		if in.bytes == before {
			return fmt.Errorf("no source files below %s", in.roots[0].dir)
		}
	}
	return nil
}

func (in *input) walk(r root, label string, wantBytes int64, emit func(key, line []byte) error) error {
	return filepath.WalkDir(r.dir, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil && path == r.dir:
			return fs.SkipAll // not every machine has every root
		case err != nil:
			return err
		case in.bytes >= wantBytes:
			return fs.SkipAll
		case !d.Type().IsRegular(), r.goOnly && !strings.HasSuffix(path, ".go"):
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil || !isText(text) {
			return err
		}
		rel, err := filepath.Rel(r.dir, path)
		if err != nil {
			return err
		}
		in.files++
		return in.file([]byte(label+"/"+filepath.ToSlash(rel)), text, emit)
	})
}

func (in *input) file(key, text []byte, emit func(key, line []byte) error) error {
	for line := range bytes.Lines(text) {
		line = bytes.TrimSuffix(line, []byte("\n"))
		if len(line)+len(key) > maxBatchBytes-1024 {
			continue // data, not a source line
		}
		in.bytes += int64(len(line))
		if err := emit(key, line); err != nil {
			return err
		}
	}
	return nil
}

func isText(b []byte) bool {
	head := b[:min(len(b), 8<<10)]
	return len(b) > 0 && len(b) < 8<<20 && bytes.IndexByte(head, 0) < 0 && (utf8.Valid(head) || utf8.Valid(head[:len(head)-utf8.UTFMax]))
}
