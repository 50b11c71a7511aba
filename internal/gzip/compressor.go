package gzip

import (
	"bytes"
	stdflate "compress/flate"
	"io"
	"sync/atomic"

	"github.com/klauspost/compress/flate"
)

// MinLevel, MaxLevel and DefaultLevel are the levels of compression. As all readers share
// the work, the default is the one with most to show for the time. For ticks of 200 bytes,
// the levels above it take twice as long for 3 % fewer bytes.
const (
	MinLevel     = 1
	MaxLevel     = 9
	DefaultLevel = 7
)

// A Budget bounds how many compressors there are at once. Each takes about a megabyte.
type Budget struct {
	max  int64
	used atomic.Int64
}

// NewBudget returns a budget for a number of compressors.
func NewBudget(compressors int) *Budget { return &Budget{max: int64(compressors)} }

// InUse returns how many compressors there are.
func (b *Budget) InUse() int { return int(b.used.Load()) }

// take reserves a place for a compressor, which give gives back.
func (b *Budget) take() bool {
	if b.used.Add(1) > b.max {
		b.give()
		return false
	}
	return true
}

func (b *Budget) give() { b.used.Add(-1) }

// A compressor deflates pieces. It is not safe for concurrent use.
type compressor struct {
	out     bytes.Buffer
	deflate interface {
		io.Writer
		Flush() error
		Reset(w io.Writer)
	}
}

// newCompressor returns a compressor of a level in [MinLevel, MaxLevel], at a restart point.
//
// Below 7, klauspost's algorithms make 3 to 16 % more of events of 60 bytes to 2 KiB than those
// of the standard library. Those forget all that they have seen whenever they are flushed after
// less than 128 bytes at level 1, so that level is their level 2.
func newCompressor(level int) *compressor {
	c := new(compressor)
	// The constructors complain of nothing but the level.
	if level < DefaultLevel {
		c.deflate, _ = stdflate.NewWriter(&c.out, max(level, 2))
	} else {
		c.deflate, _ = flate.NewWriter(&c.out, level)
	}
	return c
}

// maxBuffer is how much memory a compressor keeps for its output.
const maxBuffer = 128 << 10

// compress returns p, deflated and flushed to a whole byte. It refers to what was compressed
// since the last restart point.
func (c *compressor) compress(p []byte) []byte {
	// Nothing here fails, as writing to a buffer does not.
	_, _ = c.deflate.Write(p)
	_ = c.deflate.Flush()
	b := bytes.Clone(c.out.Bytes())
	if c.out.Cap() > maxBuffer {
		c.out = bytes.Buffer{}
	}
	c.out.Reset()
	return b
}

// restart makes what follows refer to nothing but known, which stands in front of it in the
// uncompressed stream. Behind a flush, the output stands at a whole byte, and the state of a
// compressor that has seen nothing else fits behind it.
func (c *compressor) restart(known []byte) {
	c.deflate.Reset(&c.out)
	if len(known) > 0 {
		_, _ = c.deflate.Write(known)
		_ = c.deflate.Flush()
		c.out.Reset()
	}
}
