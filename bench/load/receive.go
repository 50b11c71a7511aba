package main

import (
	"bytes"
	"errors"
	"fmt"
	"syscall"
	"time"
)

// An undecoded is what was read of a stream in gzip. Decoding takes many times as long as
// reading: clients whose bytes are there must not be read later for the decoding of others, as
// each stands for a machine of its own.
type undecoded struct {
	client int
	bytes  []byte
	at     int64
}

// receive reads what there is. A short read tells that there is no more, unless
// the server has ended the connection: no other edge announces that end.
func (w *epollWorker) receive(k *epollConn, i int, toEnd bool) {
	w.reading = i
	for {
		n, err := readNow(int(k.fd), w.buf)
		if errors.Is(err, syscall.EAGAIN) {
			return
		}
		if err != nil || n == 0 {
			if err == nil {
				err = errors.New("connection closed by the server")
			}
			w.lose(k, err)
			return
		}
		if now := time.Now().UnixNano(); k.gunzip != 0 {
			w.undecoded = append(w.undecoded, undecoded{i, bytes.Clone(w.buf[:n]), now})
		} else if !w.take(k, w.buf[:n], now) {
			return
		}
		if k.slow && k.phase == reading && !w.resumed {
			k.phase = stalled
			w.watch(k, i, syscall.EPOLL_CTL_MOD, epollEdge)
			return
		}
		if n < len(w.buf) && !toEnd {
			return
		}
	}
}

// take takes bytes of a client that were read at some time. It reports whether its response
// goes on.
func (w *epollWorker) take(k *epollConn, p []byte, at int64) bool {
	r := &w.healthy
	if k.slow {
		r = &w.stalled
	}
	missing := r.missing
	goesOn := r.feed(&k.stream, p, at)
	if k.slow && r.missing > missing {
		k.resumed = true
	}
	if k.phase == asking && k.status != 0 {
		k.phase = reading
		w.answered(k)
		if k.status == 200 && !k.counted {
			k.counted = true
			w.succeed()
			if k.slow {
				w.stalledCount++
			}
		} else if k.status != 200 {
			w.lose(k, fmt.Errorf("status %d", k.status))
			return false
		}
	}
	if !goesOn {
		r.streamEnds++
		w.lose(k, errors.New("response ended by the server"))
	}
	return goesOn
}

// decodePortion is how much is decoded before reading has its turn again.
const decodePortion = 16

// decode takes the oldest of what was read of streams in gzip.
func (w *epollWorker) decode(limit int) {
	n := min(limit, len(w.undecoded))
	if n == 0 {
		return
	}
	portion := w.undecoded[:n]
	w.undecoded = w.undecoded[n:]
	// Each decoder has a goroutine. This one is bound to its thread: from here, each would be a
	// change of threads.
	done := make(chan struct{})
	go func() {
		defer close(done)
		for _, u := range portion {
			if k := &w.conns[u.client]; k.phase == reading || k.phase == stalled {
				w.reading = u.client
				w.take(k, u.bytes, u.at)
			}
		}
	}()
	<-done
}
