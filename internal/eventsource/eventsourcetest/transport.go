// Package eventsourcetest answers the requests of clients in memory, so that
// servers, clients and the clock can stand in one synctest bubble.
package eventsourcetest

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"time"
)

// Transport is a round tripper whose server is a function. The server ends the
// response by returning, and breaks it by a panic with [http.ErrAbortHandler].
type Transport func(w http.ResponseWriter, r *http.Request)

// RoundTrip returns as soon as the header has been written.
func (serve Transport) RoundTrip(r *http.Request) (*http.Response, error) {
	reader, writer := io.Pipe()
	w := &response{header: make(http.Header), body: writer, begun: make(chan *http.Response, 1), request: r}
	broken := make(chan struct{})
	stop := context.AfterFunc(r.Context(), func() { writer.CloseWithError(r.Context().Err()) })
	go func() {
		defer stop()
		defer func() {
			if p := recover(); p != nil {
				close(broken)
				writer.CloseWithError(io.ErrUnexpectedEOF)
			}
		}()
		serve(w, r)
		w.WriteHeader(http.StatusOK)
		_ = writer.Close()
	}()
	select {
	case response := <-w.begun:
		response.Body = reader
		return response, nil
	case <-broken:
		return nil, io.ErrUnexpectedEOF
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
}

type response struct {
	header  http.Header
	body    *io.PipeWriter
	begun   chan *http.Response
	request *http.Request
	wrote   bool
}

func (w *response) Header() http.Header { return w.header }

func (w *response) WriteHeader(status int) {
	if w.wrote {
		return
	}
	w.wrote = true
	w.begun <- &http.Response{
		Status:     fmt.Sprintf("%d %s", status, http.StatusText(status)),
		StatusCode: status,
		Proto:      "HTTP/2.0",
		ProtoMajor: 2,
		Header:     w.header.Clone(),
		Request:    w.request,
	}
}

func (w *response) Write(p []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	return w.body.Write(p)
}

func (w *response) Flush() { w.WriteHeader(http.StatusOK) }

// Wait is what a server does instead of sleeping, as no goroutine may be left
// behind: it returns false if the client has gone before d has passed.
func Wait(r *http.Request, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-r.Context().Done():
		return false
	}
}
