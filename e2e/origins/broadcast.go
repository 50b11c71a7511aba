package origins

import (
	"fmt"
	"net/http"
	"sync"
)

// A Broadcast is a stream that is silent until the test publishes. A
// connection gets what is published while it is open.
type Broadcast struct {
	mu      sync.Mutex
	last    int
	streams map[chan string]struct{}
}

// Publish sends the next numbered event to all connections.
func (b *Broadcast) Publish() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.last++
	for stream := range b.streams {
		stream <- fmt.Sprintf("id: %d\ndata: {\"n\":%d}\n\n", b.last, b.last)
	}
}

func (b *Broadcast) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	// Larger than what any test publishes, so that Publish never waits.
	stream := make(chan string, 1000)
	b.mu.Lock()
	if b.streams == nil {
		b.streams = make(map[chan string]struct{})
	}
	b.streams[stream] = struct{}{}
	b.mu.Unlock()
	defer func() {
		b.mu.Lock()
		delete(b.streams, stream)
		b.mu.Unlock()
	}()
	// Whoever has the header gets what is published from then on.
	w.Header().Set("Content-Type", "text/event-stream")
	rc := http.NewResponseController(w)
	if rc.Flush() != nil {
		return
	}
	for {
		select {
		case <-r.Context().Done():
			return
		case event := <-stream:
			fmt.Fprint(w, event)
			if rc.Flush() != nil {
				return
			}
		}
	}
}
