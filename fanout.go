package ssefanout

import (
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/caddyserver/caddy/v2"

	"github.com/sse-fanout/caddy-sse-fanout/internal/direct"
	"github.com/sse-fanout/caddy-sse-fanout/internal/hub"
)

// A pool is the topics of one handler. It outlives the handler: first over a
// reload that leaves the handler's configuration as it was, then for as long as
// it takes to end its subscribers.
type pool struct {
	lineage *lineage
	opts    *Options
	words   [audiences]words
	stats   *stats
	sockets sockets
	direct  *direct.Writer

	logger    atomic.Pointer[zap.Logger]
	hints     hints
	limitLogs map[rejection]*limitLog
	yieldLog  limitLog
	yielded   atomic.Uint64 // topics that have made room for others
	passing   passMemory
	varying   keyMemory[[]string] // the headers that have joined a key
	backlogs  *backlogs
	futile    poolDebts // fetches that have come to nothing

	mu sync.Mutex

	// Guarded by mu.
	topics   map[string]*topic
	detached map[*topic]struct{}      // over for newcomers, but with subscribers
	closing  map[string]chan struct{} // of topics that are over, until their connection is
	spares   *spares                  // of topics
	perIP    map[string]*holder       // by client address, as it is counted
	total    int                      // subscribers, and streams that pass one to one
	over     *ending                  // set once the pool takes no more subscribers
}

const (
	// refusalMemory is how long a no of the origin answers those who come next.
	refusalMemory = time.Second

	// notStreamMemory is how long a key is known to be no event stream.
	notStreamMemory = time.Minute
)

func newPool(l *lineage, h *Handler) *pool {
	// A copy, so that a pool that outlives its configuration does not keep it
	// in memory.
	opts := h.Options
	p := &pool{
		lineage:   l,
		opts:      &opts,
		words:     newWords(&opts),
		stats:     new(stats),
		sockets:   h.sockets,
		topics:    make(map[string]*topic),
		detached:  make(map[*topic]struct{}),
		closing:   make(map[string]chan struct{}),
		limitLogs: make(map[rejection]*limitLog),
		spares:    newSpares(),
		backlogs:  newBacklogs(&opts),
		futile:    poolDebts{debts: debts{allowance: futileInPool}},
		perIP:     make(map[string]*holder),
	}
	for _, why := range limits {
		p.limitLogs[why] = new(limitLog)
	}
	if p.sockets == nil {
		p.sockets = kernelSockets{}
	}
	p.direct = direct.NewWriter(direct.Options{
		Timeout:  p.dispatchTimeout(),
		Panicked: p.panicked,
		Network:  p.sockets.network,
	})
	p.logger.Store(h.logger)
	counted.add(p)
	alive.add(p)
	if caddy.Exiting() {
		// Whoever ends all pools may have looked for them before.
		p.end(ending{Reason: endExiting})
	}
	return p
}

// panicked logs a panic in a callback of direct delivery, as net/http does of a handler's.
func (p *pool) panicked(value any) {
	p.log().Error("a callback has panicked", zap.Any("panic", value), zap.Stack("stack"))
}

// end ends all subscribers and takes no more.
func (p *pool) end(e ending) {
	p.mu.Lock()
	p.over = &e
	var busy []*topic
	for t := range p.detached {
		busy = append(busy, t)
	}
	for _, t := range p.topics {
		if t.subscribers > 0 {
			busy = append(busy, t)
		} else {
			p.closeTopic(t)
		}
	}
	p.retire()
	p.mu.Unlock()

	for _, t := range busy {
		t.end(e)
	}
}

// retire forgets a pool that is over and has nobody left. p.mu must be held.
func (p *pool) retire() {
	if p.over != nil && len(p.topics) == 0 && len(p.detached) == 0 {
		p.direct.Close()
		alive.remove(p)
	}
}

func (p *pool) log() *zap.Logger { return p.logger.Load() }

// all returns the topics that have subscribers or that newcomers would join.
// p.mu must be held.
func (p *pool) all() []*topic {
	all := slices.Collect(maps.Values(p.topics))
	return slices.AppendSeq(all, maps.Keys(p.detached))
}

// source returns what answers upstream requests from now on, unless the pool is
// over.
func (p *pool) source() (source, bool) {
	p.mu.Lock()
	over := p.over != nil
	p.mu.Unlock()
	if over {
		return source{}, false
	}
	return p.lineage.source()
}

// join returns the topic for req, with one subscriber more, and opens it if
// there is none. Whatever arrives at once, one topic is made for a key, and with
// it one upstream (R2). The client begins at joined, if its id says nothing better.
func (p *pool) join(h *Handler, req *topicRequest, id claim, clientIP string) (t *topic, joined hub.Cursor, _ rejection, _ passReason) {
	t, joined, yielded, rejected, passed := p.joinOrOpen(h, req, id, clientIP)
	if yielded != nil {
		yielded.end(ending{Reason: endYielded})
		p.warnOfYielding(yielded)
	}
	return t, joined, rejected, passed
}

// joinOrOpen is join, but for ending the subscribers of the topic that has yielded
// its place to t, if there is one.
func (p *pool) joinOrOpen(h *Handler, req *topicRequest, id claim, clientIP string) (t *topic, joined hub.Cursor, yielded *topic, _ rejection, _ passReason) {
	key := req.key()
	asksNothing := h.asksNothing()

	p.mu.Lock()
	defer p.mu.Unlock()
	if p.over != nil {
		return nil, 0, nil, rejectEnding, ""
	}
	if passed := p.passing.recall(key); passed != "" {
		return nil, 0, nil, "", passed
	}
	t = p.topics[key]
	if p.opts.wrapping {
		if passed := p.passing.recall(h.frontKey(key)); passed != "" {
			return nil, 0, nil, "", passed
		}
		if t == nil && asksNothing {
			return nil, 0, nil, "", passFront
		}
	}
	if why := p.overLimit(t, clientIP); why != "" {
		return nil, 0, nil, why, ""
	}
	if t == nil {
		var ok bool
		if yielded, ok = p.makeRoom(clientIP); !ok {
			return nil, 0, nil, rejectTopics, ""
		}
		t, joined = p.open(key, req, id, clientIP)
	} else {
		joined = t.firstPosition(id.id != "").Cursor
	}
	p.stopLinger(t)
	t.subscribers++
	address := p.holder(clientIP)
	if t.addresses[clientIP]++; t.addresses[clientIP] == 1 {
		address.uses++
	}
	address.subscribers++
	p.total++
	p.passOn(t)
	p.sortOut(t)
	return t, joined, yielded, "", ""
}

// refused is called when the origin has said no to t.
func (p *pool) refused(t *topic) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sortOut(t)
}

// open makes a topic and starts its upstream. The log begins at start: the origin may
// have sent events before the client that opens the topic gets to read. p.mu must be held.
func (p *pool) open(key string, req *topicRequest, id claim, clientIP string) (t *topic, start hub.Cursor) {
	t = newTopic(p, key, req, clientIP)
	start = t.log.Newest().Cursor
	p.topics[key] = t
	p.countTopic(t, +1)

	if p.opts.Catchup.Connections < 0 && id.usable() && !t.assigned(id.id) {
		t.opener = id
	}
	before := p.closing[key]
	go func() {
		if before != nil {
			// An origin with a single worker has no place for the new
			// connection before the old one has ended.
			<-before
		}
		t.upstream.run(t.ctx)
		t.catchups.close()
		t.helpers.Wait()
		close(t.done)
		p.closed(t)
	}()
	return t, start
}

// leave takes a subscriber off its topic.
func (p *pool) leave(t *topic, clientIP string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	t.subscribers--
	if t.addresses[clientIP]--; t.addresses[clientIP] == 0 {
		delete(t.addresses, clientIP)
		p.holder(clientIP).uses--
	}
	p.total--
	p.holder(clientIP).subscribers--
	p.dropIfEmpty(clientIP)
	linger := time.Duration(p.opts.Linger.Duration)
	switch {
	case t.subscribers > 0:
		p.passOn(t)
		p.sortOut(t)
	case p.topics[t.key] == t && t.isRefused() && p.over == nil:
		// It answers those who come next, and goes by itself.
		p.sortOut(t)
	case p.topics[t.key] != t, p.over != nil, linger < 0, t.log.Newest().Cursor == 0:
		p.closeTopic(t)
	default:
		p.startLinger(t, linger)
	}
}

// startLinger keeps a topic without subscribers for a while. If too many linger, the
// address that has opened most of these gives up the one that has lingered longest.
// p.mu must be held.
func (p *pool) startLinger(t *topic, d time.Duration) {
	var timer *time.Timer
	timer = time.AfterFunc(d, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if t.linger == timer { // nobody has come at the same moment
			p.closeTopic(t)
		}
	})
	t.linger = timer
	p.sortOut(t)
	if p.spares.idle > p.opts.Linger.Topics {
		p.closeTopic(p.spares.most(mostIdle).oldest(spareLingering))
	}
}

// stopLinger ends the wait of a topic for its next subscriber. p.mu must be held.
func (p *pool) stopLinger(t *topic) {
	if t.linger != nil {
		t.linger.Stop()
		t.linger = nil
	}
}

// detach makes whoever asks for the key of t from now on open another topic,
// while the subscribers of this one stay until they are ended.
func (p *pool) detach(t *topic) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.detachTopic(t)
	if t.subscribers == 0 {
		p.closeTopic(t)
	}
}

// detachMoved is detach for a topic whose clients are led elsewhere: the next topic for
// its key does not wait until they have left.
func (p *pool) detachMoved(t *topic) {
	p.mu.Lock()
	t.moved = true
	p.mu.Unlock()
	p.detach(t)
}

// detachTopic is detach with p.mu held.
func (p *pool) detachTopic(t *topic) {
	if p.topics[t.key] != t {
		return
	}
	p.stopLinger(t)
	p.spares.set(t, p.holder(t.openedBy).opened, notSpare)
	delete(p.topics, t.key)
	p.detached[t] = struct{}{}
	p.countTopic(t, -1)
	if t.moved {
		return // its connection stays as long as its clients, for whom nobody waits
	}
	select {
	case <-t.done:
	default:
		p.closing[t.key] = t.done
	}
}

// closeTopic closes the upstream of a topic that has no subscribers. p.mu must
// be held.
func (p *pool) closeTopic(t *topic) {
	p.detachTopic(t)
	delete(p.detached, t)
	t.stop()
	p.retire()
}

// closeUnused closes a topic that has no subscribers, and reports whether it has none.
func (p *pool) closeUnused(t *topic) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if t.subscribers > 0 {
		return false
	}
	p.closeTopic(t)
	return true
}

// closed is called when the upstream of a topic has ended.
func (p *pool) closed(t *topic) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closing[t.key] == t.done {
		delete(p.closing, t.key)
	}
}
