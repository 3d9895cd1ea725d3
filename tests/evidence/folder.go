package main

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/mod/sumdb/tlog"
)

const bundles = -1 // the level of bundles of entries, in tlog and here

// A folder reads the files of a log of a size: the tlog.TileReader of a folder.
type folder struct {
	path  string
	size  int64
	above map[tlog.Tile][]byte // tiles above level 0: few, and needed again and again
}

// Go's paths name the height of tiles too, and call bundles otherwise than c2sp.org/tlog-tiles.
var (
	toC2SP   = strings.NewReplacer("tile/8/data/", "tile/entries/", "tile/8/", "tile/")
	fromC2SP = strings.NewReplacer("tile/entries/", "tile/8/data/", "tile/", "tile/8/")
)

func (f *folder) Height() int                     { return 8 }
func (f *folder) SaveTiles([]tlog.Tile, [][]byte) {}

func (f *folder) file(t tlog.Tile) ([]byte, error) {
	return os.ReadFile(filepath.Join(f.path, toC2SP.Replace(t.Path())))
}

// tile gives the tile or bundle of this number as wide as it is in the log.
func (f *folder) tile(level int, number int64) tlog.Tile {
	width := f.size>>shift(level) - number*256
	if width > 256 {
		width = 256
	}
	return tlog.Tile{H: 8, L: level, N: number, W: int(width)}
}

// read gives the file of a tile or bundle; a partial one may be gone once there is the full one.
func (f *folder) read(t tlog.Tile) ([]byte, error) {
	data, err := f.file(t)
	if !os.IsNotExist(err) {
		return data, err
	}
	full, none := f.file(tlog.Tile{H: 8, L: t.L, N: t.N, W: 256})
	if none != nil {
		return nil, err
	}
	if t.L != bundles && len(full) == 256*tlog.HashSize {
		full = full[:t.W*tlog.HashSize]
	}
	return full, nil
}

func (f *folder) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	var all [][]byte
	for _, t := range tiles {
		data, known := f.above[t]
		if !known {
			var err error
			if data, err = f.read(t); err != nil {
				return nil, err
			}
			if t.L > 0 {
				f.above[t] = data
			}
		}
		all = append(all, data)
	}
	return all, nil
}

// end says up to which entry there are bundles without a gap, signed or not.
func (f *folder) end() int64 {
	last := tlog.Tile{H: 8, L: bundles, N: f.size / 256, W: 256}
	for ; ; last.N++ {
		if _, err := f.file(last); err != nil {
			break
		}
	}
	for last.W--; last.W > 0; last.W-- {
		if _, err := f.file(last); err == nil {
			break
		}
	}
	return last.N*256 + int64(last.W)
}

// shift says how many bits the numbers of entries have below those of hashes at a level.
func shift(level int) uint {
	if level < 0 {
		return 0
	}
	return uint(8 * level)
}

// unpack gives the entries of a bundle, each behind its length in two bytes, and whether it ends with one.
func unpack(data []byte) ([][]byte, bool) {
	var entries [][]byte
	for len(data) >= 2 {
		end := 2 + int(binary.BigEndian.Uint16(data))
		if end > len(data) {
			break
		}
		entries, data = append(entries, data[2:end]), data[end:]
	}
	return entries, len(data) == 0
}
