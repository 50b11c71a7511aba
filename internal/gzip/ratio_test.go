package gzip

import (
	"bytes"
	stdgzip "compress/gzip"
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sse-fanout/caddy-sse-fanout/internal/hub"
)

// What all clients together are sent, beside what a compressor of the same level for each would
// send them: without anybody coming back at least 0.9 of its ratio, and with 5 % each second 0.94.
func TestRatioBesideACompressorEach(t *testing.T) {
	for _, tc := range []struct {
		size, rate int
		churn      float64
		least      float64
	}{
		{200, 20, 0, 0.9},
		{2048, 20, 0, 0.9},
		{200, 20, 0.05, 0.94},
		{200, 50, 0.05, 0.96},
		{200, 100, 0.05, 0.97},
		{2048, 20, 0.05, 0.97},
	} {
		t.Run(fmt.Sprintf("%d bytes, %d a second, churn %v", tc.size, tc.rate, tc.churn), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ours, each, plain := traffic(tc.size, tc.rate, tc.churn)
				share := float64(each) / float64(ours)
				t.Logf("%.2f times smaller, with a compressor each %.2f: %.3f of it",
					float64(plain)/float64(ours), float64(plain)/float64(each), share)
				if share < tc.least {
					t.Errorf("%.3f of the ratio of a compressor each, want %.2f", share, tc.least)
				}
			})
		})
	}
}

// A twin is a client of a rendition, and one with a compressor of its own that gets the same.
type twin struct {
	stream *Stream
	cursor hub.Cursor
	alone  *stdgzip.Writer
	sent   bytes.Buffer
}

// traffic returns the bytes that clients are sent in a minute, of which the first half is
// not counted: compressed once for all, by a compressor each, and as they are.
func traffic(size, rate int, churn float64) (ours, each, plain int) {
	const (
		clients = 16
		level   = 6 // of the same library in both
		seconds = 60
	)
	log := hub.New(hub.Limits{Events: 5000, Bytes: 4 << 20, Age: time.Hour})
	r := NewRendition(log, Settings{level, NewBudget(1)}, []byte(testHeartbeat), []byte(testGap))
	join := func(at hub.Cursor) *twin {
		z, _ := r.Join()
		w := &twin{stream: z, cursor: at}
		w.alone, _ = stdgzip.NewWriterLevel(&w.sent, level)
		return w
	}
	all := make([]*twin, clients)
	for i := range all {
		all[i] = join(0)
	}
	random := rand.New(rand.NewPCG(1, 0)) //nolint:gosec // repeatable
	leaving := 0.0
	for i := range seconds * rate {
		if i == seconds*rate/2 {
			ours, each, plain = 0, 0, 0
		}
		for leaving += clients * churn / float64(rate); leaving >= 1; leaving-- {
			k := random.IntN(clients)
			all[k].stream.Close()
			all[k] = join(all[k].cursor)
		}
		log.Publish(hub.Entry{Wire: []byte(wire(random, i, size))})
		for _, w := range all {
			b := w.stream.Next(w.cursor)
			text := b.Stored
			ours += len(b.Bytes)
			if len(text) > 0 {
				ours += len(AppendStored(nil, text)) + len(Flush)
			}
			w.stream.Took(&b)
			_, _ = w.alone.Write(log.LookUntil(w.cursor, b.Next).Bytes)
			_ = w.alone.Flush()
			each += w.sent.Len()
			w.sent.Reset()
			plain += b.Plain
			w.cursor = b.Next
		}
		time.Sleep(time.Second / time.Duration(rate))
	}
	for _, w := range all {
		w.stream.Close()
	}
	return ours, each, plain
}
