package oracle

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"time"
)

// A run is one variant of a case: with the line, or without.
type run struct {
	test    *testcase
	line    string // what SHARE stands for
	origins *origins
	ports   map[string]int
	visits  []*visit // in the order of their connections
	crowd   int      // streams that the origins began for a crowd of equal clients
	stuck   bool     // a client has waited in vain, so no other is made to
}

// A visit is a client, over all of its connections.
type visit struct {
	what    string // when it connected
	id      identity
	url     string
	returns bool // it connects again when its stream ends, as an EventSource does
	client  *client
	since   int // the newest tick when it connected
	gone    bool
	got     []answer // of its connections, once they are over; none if it never connected
}

// hasStream reports whether the client has got a stream.
func (v *visit) hasStream() bool { return len(v.got) > 0 && v.got[0].stream }

// wasReset reports whether a connection was reset before an answer. Each configuration of
// Caddy has a socket of its own for an address (SO_REUSEPORT). A connection that waits to be
// accepted at that of the configuration that goes is reset by the kernel, whoever is behind.
func (r *run) wasReset() bool {
	return slices.ContainsFunc(r.visits, func(v *visit) bool {
		return slices.ContainsFunc(v.got, func(a answer) bool { return a.reset })
	})
}

// isInconclusive reports whether Caddy alone was too slow, or could not reach an origin,
// as happens on a machine that has too much to do. No site of these tests answers 502.
func (r *run) isInconclusive() bool {
	return slices.ContainsFunc(r.visits, func(v *visit) bool {
		return slices.ContainsFunc(v.got, func(a answer) bool { return a.late || a.status == http.StatusBadGateway })
	})
}

func newRun(test *testcase, line string) *run {
	return &run{test: test, line: line, origins: newOrigins(), ports: make(map[string]int)}
}

// port returns the port that a word stands for.
func (r *run) port(word string) int {
	if r.ports[word] == 0 {
		r.ports[word] = freePort()
	}
	return r.ports[word]
}

// connect connects a client. A query parameter makes the URL differ from those of
// other rounds of the script, so that rounds share no stream.
func (r *run) connect(what string, id identity, round int) *visit {
	query := fmt.Sprintf("round=%d", round)
	if id.query != "" {
		query = id.query + "&" + query
	}
	u := url.URL{Path: id.path, RawQuery: query}
	v := &visit{what: what, id: id, url: u.String(), since: r.origins.newest()}
	r.visits = append(r.visits, v)
	if r.stuck {
		v.gone = true
		return v
	}
	r.dial(v, "")
	return v
}

func (r *run) connectAll(what string, ids []identity, round int) []*visit {
	visits := make([]*visit, len(ids))
	for i, id := range ids {
		visits[i] = r.connect(what, id, round)
	}
	return visits
}

func (r *run) dial(v *visit, lastID string) {
	word := "PORT"
	if v.id.secondPort {
		word = "PORT2"
	}
	v.client = connect(v.id, r.test.scheme(), r.port(word), v.url, lastID)
	r.stuck = r.stuck || v.client.stuck()
}

// tick sends an event on all streams and waits until all connected clients have it.
func (r *run) tick() {
	if r.stuck {
		return
	}
	n := r.origins.tick()
	var wg sync.WaitGroup
	for _, v := range r.visits {
		if !v.gone {
			wg.Go(func() { v.client.await(n) })
		}
	}
	wg.Wait()
	for _, v := range r.visits {
		if !v.gone {
			r.comeBack(v, n)
			r.stuck = r.stuck || v.client.stuck()
		}
	}
}

// returnPause is how long a client waits between two attempts to connect again. An
// EventSource waits longer.
const returnPause = 20 * time.Millisecond

// comeBack connects a client again whose stream has ended, if it is one that returns,
// and waits until it has the event that all others have.
func (r *run) comeBack(v *visit, n int) {
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(returnPause) {
		ended, lastID := v.client.over()
		if !ended || !v.returns {
			return
		}
		v.got = append(v.got, v.client.leave())
		r.dial(v, lastID)
		if lastID != strconv.Itoa(n) {
			v.client.await(n)
		}
	}
}

// leave disconnects clients.
func (r *run) leave(visits []*visit) {
	for _, v := range visits {
		if !v.gone {
			v.gone = true
			v.got = append(v.got, v.client.leave())
		}
	}
}

// close disconnects all clients and stops the origins.
func (r *run) close() {
	r.leave(r.visits)
	r.origins.close()
}
