package demo

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"time"

	"github.com/sse-fanout/caddy-sse-fanout/internal/eventsource"
	"github.com/sse-fanout/caddy-sse-fanout/internal/sse"
)

// crowd is a number of clients, each with a TCP connection of its own to the
// site that the page belongs to. They behave as EventSource does: they come
// back with the last id when a connection ends, and give up when they are told
// no. It survives a reload, as any client does.
type crowd struct {
	url       *url.URL
	limit     int
	transport http.RoundTripper
	wg        sync.WaitGroup

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

func newCrowd(address string, limit int) (*crowd, error) {
	u, err := url.Parse(address)
	if err != nil {
		return nil, fmt.Errorf("parsing the address of clients: %w", err)
	}
	c := &crowd{
		url:   u,
		limit: limit,
		now:   crowdStatus{Limit: limit},
		transport: &http.Transport{
			// No proxy: the way to our own site leads past it.
			DisableKeepAlives:  true,
			DisableCompression: true,
		},
	}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	return c, nil
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
	last := 0 // id
	client := &eventsource.Client{
		URL:       c.url,
		Header:    http.Header{"Host": {host}, "User-Agent": {"sse-demo-client"}},
		Transport: c.transport,
	}
	client.Event = func(_ time.Time, e *sse.Event, id string) error {
		n, _ := strconv.Atoi(id)
		if e.HasData && last > 0 && n != last+1 {
			c.mu.Lock()
			c.now.Gaps++
			c.mu.Unlock()
		}
		last = n
		return nil
	}
	for isConnectError(client.Run(ctx)) {
		// To Run, a first connection that fails is final. A page goes on.
		select {
		case <-time.After(eventsource.DefaultRetry):
		case <-ctx.Done():
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now.Open--
	if ctx.Err() == nil {
		c.now.Refused++
	}
}

func isConnectError(err error) bool {
	_, ok := errors.AsType[*eventsource.ConnectError](err)
	return ok
}
