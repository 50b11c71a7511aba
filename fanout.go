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
)

// A pool is the topics of one handler. It outlives the handler: first over a
// reload that leaves the handler's configuration as it was, then for as long as
// it takes to end its subscribers.
type pool struct {
	lineage   *lineage
	opts      *Options
	heartbeat []byte // in wire form
	stats     *stats
	sockets   sockets
	direct    *direct.Writer

	logger    atomic.Pointer[zap.Logger]
	hints     hints
	limitLogs map[rejection]*limitLog
	passing   passMemory

	mu sync.Mutex

	// Guarded by mu.
	topics    map[string]*topic
	detached  map[*topic]struct{}      // over for newcomers, but with subscribers
	closing   map[string]chan struct{} // of topics that are over, until their connection is
	lingering []*topic                 // without subscribers, the longest first
	perIP     map[string]*clientCount
	total     int     // subscribers
	over      *ending // set once the pool takes no more subscribers
}

// clientCount is what the clients of one address hold.
type clientCount struct{ subscribers, topics int }

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
		heartbeat: opts.Heartbeat.wire(),
		stats:     new(stats),
		sockets:   h.sockets,
		topics:    make(map[string]*topic),
		detached:  make(map[*topic]struct{}),
		closing:   make(map[string]chan struct{}),
		limitLogs: make(map[rejection]*limitLog),
		perIP:     make(map[string]*clientCount),
	}
	for _, why := range limits {
		p.limitLogs[why] = new(limitLog)
	}
	if p.sockets == nil {
		p.sockets = kernelSockets{}
	}
	p.direct = direct.NewWriter(direct.Options{
		Heartbeat: p.heartbeat,
		Timeout:   p.dispatchTimeout(),
		Network:   p.sockets.network,
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
			p.stopLinger(t)
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

// sourceOf returns what answers the requests of t from now on, unless the pool
// is over.
func (p *pool) sourceOf(t *topic) (source, bool) {
	p.mu.Lock()
	over := p.over != nil
	p.mu.Unlock()
	if over {
		return source{}, false
	}
	return p.lineage.source(t)
}

// A rejection says why a client was turned away. It is a metric label.
type rejection string

const (
	rejectTopics      rejection = "max_topics"
	rejectTopicsIP    rejection = "max_topics_per_client_ip"
	rejectTotal       rejection = "max_subscribers"
	rejectTopic       rejection = "max_subscribers_per_topic"
	rejectIP          rejection = "max_subscribers_per_client_ip"
	rejectUnavailable rejection = "unavailable" // with unavailable reject
	rejectEnding      rejection = "ending"      // on exit, or while draining
)

// limits are the rejections that an operator has set a bound for.
var limits = []rejection{rejectTopics, rejectTopicsIP, rejectTotal, rejectTopic, rejectIP}

// join returns the topic for req, with one subscriber more, and opens it if
// there is none. Whatever arrives at once, one topic is made for a key, and with
// it one upstream (R2).
func (p *pool) join(req *topicRequest, id claim, clientIP string, route source) (*topic, rejection, passReason) {
	key := req.key()

	p.mu.Lock()
	defer p.mu.Unlock()
	if p.over != nil {
		return nil, rejectEnding, ""
	}
	if passed := p.passing.recall(key); passed != "" {
		return nil, "", passed
	}
	t := p.topics[key]
	if why := p.overLimit(t, clientIP); why != "" {
		return nil, why, ""
	}
	if t == nil {
		t = p.open(key, req, id, clientIP, route)
	} else if p.opts.wrapping {
		t.offer(route)
	}
	p.stopLinger(t)
	t.subscribers++
	p.total++
	p.count(clientIP).subscribers++
	return t, "", ""
}

// overLimit tells the limit that one more subscriber of t, or of a new topic if
// t is nil, would pass. p.mu must be held.
func (p *pool) overLimit(t *topic, clientIP string) rejection {
	topics, subscribers := &p.opts.MaxTopics, &p.opts.MaxSubscribers
	has := clientCount{}
	if c := p.perIP[clientIP]; c != nil {
		has = *c
	}
	switch {
	case t == nil && topics.PerClientIP > 0 && has.topics >= topics.PerClientIP:
		return rejectTopicsIP
	case subscribers.Total > 0 && p.total >= subscribers.Total:
		return rejectTotal
	case t != nil && subscribers.PerTopic > 0 && t.subscribers >= subscribers.PerTopic:
		return rejectTopic
	case subscribers.PerClientIP > 0 && has.subscribers >= subscribers.PerClientIP:
		return rejectIP
	case t == nil && len(p.topics) >= topics.Total && !p.evictLingering():
		return rejectTopics
	}
	return ""
}

// evictLingering closes the topic that has lingered longest to make room for
// another. p.mu must be held.
func (p *pool) evictLingering() bool {
	if len(p.lingering) == 0 {
		return false
	}
	t := p.lingering[0]
	p.stopLinger(t)
	p.closeTopic(t)
	return true
}

// count returns the entry of a client address. p.mu must be held.
func (p *pool) count(clientIP string) *clientCount {
	c := p.perIP[clientIP]
	if c == nil {
		c = new(clientCount)
		p.perIP[clientIP] = c
	}
	return c
}

// uncount drops the entry of a client address that holds nothing. p.mu must be
// held.
func (p *pool) uncount(clientIP string) {
	if c := p.perIP[clientIP]; c != nil && *c == (clientCount{}) {
		delete(p.perIP, clientIP)
	}
}

// open makes a topic and starts its upstream. p.mu must be held.
func (p *pool) open(key string, req *topicRequest, id claim, clientIP string, route source) *topic {
	t := newTopic(p, key, req, clientIP, route)
	p.topics[key] = t
	p.count(clientIP).topics++

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
	return t
}

// leave takes a subscriber off its topic.
func (p *pool) leave(t *topic, clientIP string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	t.subscribers--
	p.total--
	p.count(clientIP).subscribers--
	p.uncount(clientIP)
	if t.subscribers > 0 {
		return
	}
	linger := time.Duration(p.opts.Linger.Duration)
	switch {
	case p.topics[t.key] == t && t.isRefused() && p.over == nil:
		// It answers those who come next, and goes by itself.
	case p.topics[t.key] != t, p.over != nil, linger < 0, t.log.Newest().Cursor == 0:
		p.closeTopic(t)
	default:
		p.lingering = append(p.lingering, t)
		var timer *time.Timer
		timer = time.AfterFunc(linger, func() {
			p.mu.Lock()
			defer p.mu.Unlock()
			if t.linger == timer { // nobody has come at the same moment
				p.stopLinger(t)
				p.closeTopic(t)
			}
		})
		t.linger = timer
		if len(p.lingering) > p.opts.Linger.Topics {
			p.evictLingering()
		}
	}
}

// stopLinger takes a topic off the list of those that linger. p.mu must be held.
func (p *pool) stopLinger(t *topic) {
	if t.linger == nil {
		return
	}
	t.linger.Stop()
	t.linger = nil
	p.lingering = slices.DeleteFunc(p.lingering, func(other *topic) bool { return other == t })
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

// detachTopic is detach with p.mu held.
func (p *pool) detachTopic(t *topic) {
	if p.topics[t.key] != t {
		return
	}
	p.stopLinger(t)
	delete(p.topics, t.key)
	p.detached[t] = struct{}{}
	p.count(t.openedBy).topics--
	p.uncount(t.openedBy)
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

// closed is called when the upstream of a topic has ended.
func (p *pool) closed(t *topic) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closing[t.key] == t.done {
		delete(p.closing, t.key)
	}
}
