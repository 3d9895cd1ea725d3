package main

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/mod/sumdb/tlog"
)

// files holds each file to its place: verified already, an earlier state of that, or of entries yet to be signed.
func files(f *folder) error {
	last, furthest := "", f.size
	err := filepath.WalkDir(f.path, func(path string, entry fs.DirEntry, err error) error {
		name, _ := filepath.Rel(f.path, path)
		if os.IsNotExist(err) && path != f.path {
			return nil // a recorder at work takes partial files away, and their folder
		}
		if err != nil || entry.IsDir() || name == "checkpoint" || strings.HasPrefix(entry.Name(), ".") {
			return err
		}
		t, err := tlog.ParseTilePath(fromC2SP.Replace(name))
		if err != nil || toC2SP.Replace(t.Path()) != name {
			return fmt.Errorf("%s does not belong to a log", name)
		}
		if end := (t.N*256 + int64(t.W)) << shift(t.L); end > furthest {
			last, furthest = name, end
		} else if end <= f.size && t.W < 256 {
			return earlier(f, t)
		}
		return nil
	})
	if err == nil && furthest > f.size && furthest > f.end() {
		err = fmt.Errorf("%s lies beyond the log's last entry", last)
	}
	return err
}

// earlier holds a partial file to being the beginning of its tile or bundle.
func earlier(f *folder, t tlog.Tile) error {
	part, err := f.file(t)
	if os.IsNotExist(err) {
		return nil // since it was named, because there is the full one now
	}
	if err != nil {
		return err
	}
	whole, err := f.read(f.tile(t.L, t.N))
	if err != nil {
		return err
	}
	found := len(part) / tlog.HashSize
	if t.L == bundles {
		inside, complete := unpack(part)
		if found = len(inside); !complete {
			found = -1
		}
	}
	if found != t.W || !bytes.HasPrefix(whole, part) {
		return fmt.Errorf("%s is not an earlier state of its tile", toC2SP.Replace(t.Path()))
	}
	return nil
}
