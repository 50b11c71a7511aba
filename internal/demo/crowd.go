package demo

import (
	"bufio"
	"context"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

// crowd is a number of clients, each with a TCP connection of its own to the
// site that the page belongs to. They behave as EventSource does: they come
// back with the last id when a connection ends, and give up when they are told
// no. It survives a reload, as any client does.
type crowd struct {
	url    string
	limit  int
	client *http.Client
	wg     sync.WaitGroup

	// Guarded by mu
	mu     sync.Mutex
	now    crowdStatus
	ctx    context.Context // ends the clients that are open
	cancel context.CancelFunc
	ended  bool
}

type crowdStatus struct {
	Open    int `json:"open"`    // clients that have not given up
	Limit   int `json:"limit"`   // how many there may be
	Gaps    int `json:"gaps"`    // ids that did not follow the one before
	Refused int `json:"refused"` // clients that gave up
}

// crowdRetry is EventSource's usual reconnection time, until the stream sets
// another.
const crowdRetry = 3 * time.Second

func newCrowd(url string, limit int) *crowd {
	c := &crowd{
		url:   url,
		limit: limit,
		now:   crowdStatus{Limit: limit},
		client: &http.Client{Transport: &http.Transport{
			// No proxy: the way to our own site leads past it.
			DisableKeepAlives:  true,
			DisableCompression: true,
		}},
	}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	return c
}

// open adds up to n clients, as far as the limit allows. They connect where
// the configuration says, and ask for host: topics are told apart by host, and
// they are to listen to the same topic as the page that called them.
func (c *crowd) open(n int, host string) crowdStatus {
	c.mu.Lock()
	defer c.mu.Unlock()
	for range n {
		if c.ended || c.now.Open >= c.limit {
			break
		}
		c.now.Open++
		ctx := c.ctx
		c.wg.Go(func() { c.follow(ctx, host) })
	}
	return c.now
}

// close ends all clients that are open now. It does not wait for them.
func (c *crowd) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cancel()
	if !c.ended {
		c.ctx, c.cancel = context.WithCancel(context.Background())
	}
}

// Destruct ends the crowd when no configuration has use for it anymore.
func (c *crowd) Destruct() error {
	c.mu.Lock()
	c.ended = true
	c.cancel()
	c.mu.Unlock()
	c.wg.Wait()
	return nil
}

func (c *crowd) status() crowdStatus {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

// follow is one client.
func (c *crowd) follow(ctx context.Context, host string) {
	m := member{retry: crowdRetry}
	refused := false
	for ctx.Err() == nil {
		refused = c.connect(ctx, host, &m)
		if refused {
			break
		}
		wait := time.NewTimer(m.retry)
		select {
		case <-wait.C:
		case <-ctx.Done():
			wait.Stop()
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now.Open--
	if refused {
		c.now.Refused++
	}
}

// connect listens until the connection ends. It reports whether the answer was
// a no.
func (c *crowd) connect(ctx context.Context, host string, m *member) (refused bool) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.url, nil)
	if err != nil {
		return true
	}
	req.Host = host
	req.Header.Set("Accept", "text/event-stream")
	req.Header.Set("Cache-Control", "no-cache")
	req.Header.Set("User-Agent", "sse-demo-client")
	if m.last > 0 {
		req.Header.Set("Last-Event-ID", strconv.Itoa(m.last))
	}
	resp, err := c.client.Do(req)
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return true
	}
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		if !m.line(lines.Text()) {
			c.mu.Lock()
			c.now.Gaps++
			c.mu.Unlock()
		}
	}
	return false
}

// member is what a client knows between two connections. It needs no more of
// the stream format than the origin and sse_fanout send: the ids, which are
// numbers, and the reconnection time.
type member struct {
	id    int  // of the event that is being read
	isNew bool // whether it has data
	last  int  // of the last event
	retry time.Duration
}

// line reads one line. It reports false at the end of an event whose id does
// not follow the one before.
func (m *member) line(line string) (follows bool) {
	if line == "" {
		follows = !m.isNew || m.last == 0 || m.id == m.last+1
		if m.id > 0 {
			m.last = m.id
		}
		m.isNew = false
		return follows
	}
	field, value, _ := strings.Cut(line, ":")
	value = strings.TrimPrefix(value, " ")
	switch field {
	case "id":
		m.id, _ = strconv.Atoi(value)
	case "data":
		m.isNew = true
	case "retry":
		if ms, err := strconv.Atoi(value); err == nil && ms >= 0 {
			m.retry = time.Duration(ms) * time.Millisecond
		}
	}
	return true
}
