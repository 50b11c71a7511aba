package eventsource

import (
	"bufio"
	"compress/gzip"
	"io"
	"net/http"
	"strings"
)

// decoded returns the body of a response as it was before it was compressed.
func decoded(response *http.Response) (io.Reader, error) {
	switch encoding := strings.ToLower(response.Header.Get("Content-Encoding")); encoding {
	case "", "identity":
		return response.Body, nil
	case "gzip", "x-gzip":
		return &gunzip{from: response.Body}, nil
	default:
		return nil, &TypeError{Encoding: encoding}
	}
}

// gunzip reads the header of a gzip stream when it is first asked for data, and
// not before: it may take its time.
type gunzip struct {
	from io.Reader
	*gzip.Reader
}

func (g *gunzip) Read(p []byte) (n int, err error) {
	if g.Reader == nil {
		// A bufio.Reader of our own does not wait for more than there is.
		if g.Reader, err = gzip.NewReader(bufio.NewReader(g.from)); err != nil {
			g.Reader = nil
			return 0, err
		}
	}
	return g.Reader.Read(p)
}
