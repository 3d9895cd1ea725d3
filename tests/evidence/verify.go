// Verifies an evidence log with Go's own packages for transparency logs, so that no code of the bus judges the bus.
//
//	verify FOLDER VKEY [OLDER-CHECKPOINT]
//
// Exit 0: verified. Exit 1: one line says which entry or file is wrong. Exit 2: wrong use. It holds the checkpoint to
// its signature, each entry to authenticated tiles, proofs of inclusion and of consistency to the root, and each file
// to its place in the log. What an entry says it does not read.
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

func open(file, vkey string) (tree tlog.Tree, err error) {
	verifier, err := note.NewVerifier(vkey)
	if err != nil {
		return tree, err
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return tree, err
	}
	opened, err := note.Open(data, note.VerifierList(verifier))
	if err != nil {
		return tree, fmt.Errorf("%s: %v", filepath.Base(file), err)
	}
	lines := strings.Split(opened.Text, "\n")
	if len(lines) < 4 || lines[0] != verifier.Name() {
		return tree, fmt.Errorf("%s: not a checkpoint of this log", filepath.Base(file))
	}
	if tree.N, err = strconv.ParseInt(lines[1], 10, 64); err == nil {
		tree.Hash, err = tlog.ParseHash(lines[2])
	}
	return tree, err
}

// entries holds each entry of a bundle to its hash in tiles that are authenticated by the root.
func entries(f *folder, reader tlog.HashReader, number int64) error {
	t := f.tile(bundles, number)
	var indexes []int64
	for i := 0; i < t.W; i++ {
		indexes = append(indexes, tlog.StoredHashIndex(0, number*256+int64(i)))
	}
	hashes, err := reader.ReadHashes(indexes)
	if err != nil {
		return fmt.Errorf("tiles of entries from %d on: %v", number*256, err)
	}
	data, err := f.read(t)
	if err != nil {
		return err
	}
	found, complete := unpack(data)
	for i, hash := range hashes {
		if i >= len(found) || tlog.RecordHash(found[i]) != hash {
			return fmt.Errorf("entry %d: %s does not agree with the tree", number*256+int64(i), toC2SP.Replace(t.Path()))
		}
	}
	if !complete || (len(found) != t.W && len(found) != 256) {
		return fmt.Errorf("%s goes on after its last entry", toC2SP.Replace(t.Path()))
	}
	return nil
}

// proofs proves entries from all over the log to be in it, and the log to extend an older one.
func proofs(tree, older tlog.Tree, reader tlog.HashReader) error {
	for i := int64(0); i < tree.N; i += 1 + tree.N/100 {
		hashes, err := reader.ReadHashes([]int64{tlog.StoredHashIndex(0, i)})
		if err != nil {
			return err
		}
		proof, err := tlog.ProveRecord(tree.N, i, reader)
		if err != nil {
			return err
		}
		if err := tlog.CheckRecord(proof, tree.N, tree.Hash, i, hashes[0]); err != nil {
			return fmt.Errorf("entry %d: %v", i, err)
		}
	}
	if older.N == 0 {
		return nil
	}
	if older.N > tree.N {
		return fmt.Errorf("checkpoint: %d entries, the older one has %d", tree.N, older.N)
	}
	proof, err := tlog.ProveTree(tree.N, older.N, reader)
	if err != nil {
		return err
	}
	return tlog.CheckTree(proof, tree.N, tree.Hash, older.N, older.Hash)
}

func verify(arguments []string) error {
	tree, err := open(filepath.Join(arguments[0], "checkpoint"), arguments[1])
	if err != nil {
		return err
	}
	var older tlog.Tree
	if len(arguments) == 3 {
		if older, err = open(arguments[2], arguments[1]); err != nil {
			return err
		}
	}
	f := &folder{path: arguments[0], size: tree.N, above: map[tlog.Tile][]byte{}}
	reader := tlog.TileHashReader(tree, f)
	for number := int64(0); number*256 < tree.N; number++ {
		if err := entries(f, reader, number); err != nil {
			return err
		}
	}
	if err := proofs(tree, older, reader); err != nil {
		return err
	}
	if err := files(f); err != nil {
		return err
	}
	fmt.Printf("verified: %d entries, root %v\n", tree.N, tree.Hash)
	return nil
}

func main() {
	if len(os.Args) != 3 && len(os.Args) != 4 {
		fmt.Fprintln(os.Stderr, "usage: verify FOLDER VKEY [OLDER-CHECKPOINT]")
		os.Exit(2)
	}
	if err := verify(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "NOT VERIFIED:", err)
		os.Exit(1)
	}
}
