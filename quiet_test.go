package ssefanout

import (
	"fmt"
	"net/http"
	"runtime"
	"testing"

	"go.uber.org/zap"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// A quietSource answers with one event and is silent then.
type quietSource struct{}

func (quietSource) ServeHTTP(w http.ResponseWriter, r *http.Request, _ caddyhttp.Handler) error {
	w.Header().Set("Content-Type", "text/event-stream")
	if _, err := w.Write([]byte(numbered(1, 1))); err != nil {
		return err
	}
	<-r.Context().Done()
	panic(http.ErrAbortHandler)
}

// inUse is the memory that goroutines and the heap take.
func inUse() int {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc + m.StackInuse)
}

// What a topic costs that has one event an hour, beside what its source takes.
func BenchmarkQuietTopics(b *testing.B) {
	for b.Loop() {
		b.ReportMetric(float64(quietTopics(b, 2000)), "bytes/topic")
	}
}

// quietTopics returns what each of n topics takes that have nothing to do.
func quietTopics(tb testing.TB, n int) int {
	h := &Handler{instance: instance{source: quietSource{}, server: new(caddyhttp.Server), logger: zap.NewNop()}}
	h.settings = settingsOf(tb, h)
	h.lineage = joinLineage(tb.Name(), &h.instance)
	defer h.Cleanup()
	p := h.lineage.poolOf(&h.instance)
	before := inUse()
	for i := range n {
		r := streamRequest()
		r.URL.Path = fmt.Sprint("/", i)
		r = caddyhttp.PrepareRequest(r, caddy.NewReplacer(), nil, h.server)
		req := h.newTopicRequest(r)
		reader, rejected, err := p.join(r, req, &arrival{handler: &h.instance})
		if rejected != "" || err != nil {
			tb.Fatal(rejected, err)
		}
		defer reader.Close()
		reader.Admit(tb.Context())
	}
	return (inUse() - before) / n
}
