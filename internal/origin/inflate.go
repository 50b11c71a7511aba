package origin

import (
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/zstd"

	"github.com/sse-fanout/caddy-sse-fanout/internal/fields"
)

// codings are what a Content-Encoding may name that changes the bytes of a body, and
// whether it is decoded here: those of IANA's registry (RFC 9110, section 16.6.1), and
// some that were never registered. Any other name (none, utf-8, chunked) is taken for a
// mistake, as browsers do: some servers send one to keep others from compressing.
var codings = map[string]bool{
	"br": true, "gzip": true, "x-gzip": true, "zstd": true,

	"aes128gcm": false, "compress": false, "x-compress": false, "dcb": false, "dcz": false,
	"deflate": false, "exi": false, "pack200-gzip": false,

	"bzip2": false, "lz4": false, "lzma": false, "sdch": false, "snappy": false, "xz": false,
}

// codingOf returns the coding that a body has, or "" if it has none. It reports false
// if nothing here decodes it.
func codingOf(header http.Header) (coding string, ok bool) {
	ok = true
	for name := range fields.Items(header["Content-Encoding"]) {
		name = strings.ToLower(name)
		decodable, isCoding := codings[name]
		if !isCoding {
			continue
		}
		ok = ok && decodable && coding == "" // nobody compresses twice
		coding = name
	}
	return coding, ok
}

// maxInflateWindow bounds the memory that a compressed stream can ask for, at
// what RFC 9659 allows zstd in HTTP.
const maxInflateWindow = 8 << 20

// An inflater decompresses what is written to it into another writer. The
// decompressors pull, and a source pushes, hence the goroutine and the pipe; a
// Write returns once its bytes have been taken.
type inflater struct {
	*io.PipeWriter
	done chan error
}

func newInflater(encoding string, to io.Writer) *inflater {
	pipe, in := io.Pipe()
	f := &inflater{PipeWriter: in, done: make(chan error, 1)}
	go func() {
		err := inflate(encoding, pipe, to)
		pipe.CloseWithError(err)
		f.done <- err
	}()
	return f
}

// Close waits for the goroutine to end.
func (f *inflater) Close() error {
	_ = f.PipeWriter.Close()
	err := <-f.done
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		// A stream is cut anywhere; what came before has been delivered.
		return nil
	}
	return err
}

func inflate(encoding string, from io.Reader, to io.Writer) error {
	var r io.Reader
	switch encoding {
	case "br":
		r = brotli.NewReader(from)
	case "zstd":
		d, err := zstd.NewReader(from, zstd.WithDecoderConcurrency(1),
			zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxInflateWindow))
		if err != nil {
			return fmt.Errorf("decoding zstd: %w", err)
		}
		defer d.Close()
		r = d
	default:
		d, err := gzip.NewReader(from)
		if err != nil {
			return fmt.Errorf("decoding gzip: %w", err)
		}
		r = d
	}
	if _, err := io.Copy(to, r); err != nil {
		return fmt.Errorf("decoding %s: %w", encoding, err)
	}
	return nil
}
