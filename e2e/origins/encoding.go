package origins

import (
	"compress/gzip"
	"io"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/zstd"
)

// An Encoding is a content coding that can be flushed after each event.
type Encoding struct {
	Name string
	New  func(io.Writer) FlushWriter
}

// FlushWriter is what every encoder here has in common.
type FlushWriter interface {
	io.Writer
	Flush() error
}

// The content codings that origins are seen to use for event streams.
var (
	Identity = Encoding{"", func(w io.Writer) FlushWriter { return plain{w} }}
	Gzip     = Encoding{"gzip", func(w io.Writer) FlushWriter { return gzip.NewWriter(w) }}
	Brotli   = Encoding{"br", func(w io.Writer) FlushWriter { return brotli.NewWriter(w) }}
	Zstd     = Encoding{"zstd", func(w io.Writer) FlushWriter {
		// Without options there is nothing that NewWriter could reject.
		enc, _ := zstd.NewWriter(w)
		return enc
	}}
)

type plain struct{ io.Writer }

func (plain) Flush() error { return nil }
