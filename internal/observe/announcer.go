package observe

import (
	"fmt"
	"sync"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyevents"
)

// An Announcer emits the events of a handler through Caddy's events app: one at
// a time, in their order, and in a goroutine of its own that lives for as long as
// there is something to emit, since whoever has subscribed to an event may take
// any time to handle it. It belongs to one configuration, and is silent before
// and after that is the active one.
type Announcer struct {
	app    *caddyevents.App
	ctx    caddy.Context
	logger *zap.Logger

	running sync.WaitGroup // the goroutine

	mu sync.Mutex

	// Guarded by mu.
	queue  []announcement
	busy   bool // the goroutine runs
	full   bool // it was logged that something was dropped
	closed bool
}

type announcement struct {
	event string
	data  map[string]any
}

const (
	// maxAnnouncements bounds what waits for a slow handler of events.
	maxAnnouncements = 1000

	// ActivePoll is how often an announcer looks whether its configuration has
	// become the active one.
	ActivePoll = 50 * time.Millisecond

	// announcerGrace is how long a handler of an event may take to notice that
	// its configuration is over.
	announcerGrace = 2 * time.Second
)

// NewAnnouncer returns the announcer of a configuration.
func NewAnnouncer(ctx caddy.Context) (*Announcer, error) {
	app, err := ctx.App("events")
	if err != nil {
		return nil, fmt.Errorf("getting events app: %w", err)
	}
	return &Announcer{app: app.(*caddyevents.App), ctx: ctx, logger: ctx.Logger()}, nil
}

// Active reports whether the configuration of a is the active one. The events app
// of any other must be left alone: it may be taking subscriptions yet.
func (a *Announcer) Active() bool {
	if a == nil || a.ctx.Err() != nil {
		return false
	}
	app, err := caddy.ActiveContext().AppIfConfigured("events")
	return err == nil && app == a.app
}

// Announce emits an event whose data are the fields of a line in the log. It
// does not wait. A nil announcer has nobody to tell.
func (a *Announcer) Announce(event string, fields []zap.Field) {
	if a == nil {
		return
	}
	data := zapcore.NewMapObjectEncoder()
	for _, field := range fields {
		field.AddTo(data)
	}
	if a.enqueue(announcement{event, data.Fields}) {
		a.logger.Warn("dropping events, as those before them are not handled yet", zap.String("event", event))
	}
}

// enqueue adds an event to those that wait, and reports whether it is the first that is
// dropped, as too many do.
func (a *Announcer) enqueue(next announcement) (drops bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case a.closed:
		return false
	case len(a.queue) >= maxAnnouncements:
		drops, a.full = !a.full, true
		return drops
	}
	a.queue = append(a.queue, next)
	if !a.busy {
		a.busy = true
		a.running.Go(a.run)
	}
	return false
}

func (a *Announcer) run() {
	for {
		a.mu.Lock()
		if len(a.queue) == 0 || a.closed {
			a.queue, a.busy, a.full = nil, false, false
			a.mu.Unlock()
			return
		}
		next := a.queue[0]
		a.queue = a.queue[1:]
		a.mu.Unlock()

		if a.awaitActive() && a.app.ShouldEmit(next.event) {
			a.app.Emit(a.ctx, next.event, next.data)
		}
	}
}

// awaitActive waits until the configuration is the active one, and reports false
// if it is over.
func (a *Announcer) awaitActive() bool {
	for !a.Active() {
		select {
		case <-a.ctx.Done():
			return false
		case <-time.After(ActivePoll):
		}
	}
	return true
}

// Close makes a silent. Its context has ended, which whoever handles an event
// should notice; nobody waits for ever for one who does not.
func (a *Announcer) Close() {
	if a == nil {
		return
	}
	a.mu.Lock()
	a.closed = true
	a.mu.Unlock()
	ended := make(chan struct{})
	go func() {
		a.running.Wait()
		close(ended)
	}()
	select {
	case <-ended:
	case <-time.After(announcerGrace):
		a.logger.Warn("leaving a handler of an event behind, which does not end with its configuration")
	}
}
