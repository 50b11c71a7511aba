package ssefanout

import (
	"bytes"
	"compress/gzip"
	"context"
	"io"
)

// A gunzip decodes what it is fed, as far as that goes.
type gunzip struct {
	feed   chan []byte
	hungry chan struct{} // it has decoded all that it was fed; closed when it has failed, or ended
	input  []byte
	output bytes.Buffer
	err    error
}

func newGunzip() *gunzip {
	z := &gunzip{feed: make(chan []byte), hungry: make(chan struct{})}
	go func() {
		defer close(z.hungry)
		r, err := gzip.NewReader(z)
		if err == nil {
			_, err = io.Copy(struct{ io.Writer }{&z.output}, r) // by its Write alone: decode resets it
		}
		z.err = err
		z.hungry <- struct{}{}
		for range z.feed {
			z.hungry <- struct{}{}
		}
	}()
	<-z.hungry
	return z
}

// Read implements io.Reader, for the decoder.
func (z *gunzip) Read(p []byte) (int, error) {
	if len(z.input) == 0 {
		z.hungry <- struct{}{}
		var ok bool
		if z.input, ok = <-z.feed; !ok {
			return 0, io.EOF
		}
	}
	n := copy(p, z.input)
	z.input = z.input[n:]
	return n, nil
}

// decode returns what there is more to read with p.
func (z *gunzip) decode(p []byte) []byte {
	z.output.Reset()
	z.feed <- bytes.Clone(p)
	<-z.hungry
	return z.output.Bytes()
}

// collect takes a part of the body. c.mu must be held.
func (c *client) collect(p []byte) error {
	if c.gunzip == nil && c.header.Get("Content-Encoding") == "gzip" && overGzip {
		c.gunzip = newGunzip()
	}
	if c.gunzip != nil {
		p = c.gunzip.decode(p)
	}
	_, err := c.body.Write(p)
	return err
}

// finish checks that a stream which has ended, and which the client has not left, has ended
// as gzip does: with a checksum that is right.
func (c *client) finish(ctx context.Context) {
	z := c.gunzip
	if z == nil {
		return
	}
	close(z.feed)
	<-z.hungry
	if whole := c.panic == nil && ctx.Err() == nil; whole != (z.err == nil) && ctx.Err() == nil {
		c.t.Errorf("the stream is whole: %t, and decoding it ends with: %v", whole, z.err)
	}
}
