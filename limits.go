package ssefanout

import (
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

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

// overLimit tells the limit that one more subscriber of t, or of a new topic if
// t is nil, would pass. Whether there is room for a new topic in all is for makeRoom
// to say. p.mu must be held.
func (p *pool) overLimit(t *topic, clientIP string) rejection {
	topics, perTopic := &p.opts.MaxTopics, p.opts.MaxSubscribers.PerTopic
	h := p.perIP[clientIP]
	switch {
	case t == nil && topics.PerClientIP > 0 && h.topics() >= topics.PerClientIP && h.opened.needless() == nil:
		return rejectTopicsIP
	case p.isFull():
		return rejectTotal
	case t != nil && perTopic > 0 && t.subscribers >= perTopic:
		return rejectTopic
	}
	return p.overSubscriberLimit(clientIP)
}

// isFull reports whether there can be no more subscribers at all. p.mu must be held.
func (p *pool) isFull() bool {
	total := p.opts.MaxSubscribers.Total
	return total > 0 && p.total >= total
}

// overSubscriberLimit tells the limit that one more stream for an address would
// pass, whichever topic it is of, if any. p.mu must be held.
func (p *pool) overSubscriberLimit(clientIP string) rejection {
	perIP := p.opts.MaxSubscribers.PerClientIP
	h := p.perIP[clientIP]
	switch {
	case p.isFull():
		return rejectTotal
	case perIP > 0 && h != nil && h.subscribers >= perIP:
		return rejectIP
	}
	return ""
}

// claim takes a place for a stream that passes one to one, unless a limit leaves
// none.
func (p *pool) claim(clientIP string) rejection {
	p.mu.Lock()
	defer p.mu.Unlock()
	if why := p.overSubscriberLimit(clientIP); why != "" {
		return why
	}
	p.total++
	p.holder(clientIP).subscribers++
	return ""
}

// release gives back a place that was claimed.
func (p *pool) release(clientIP string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.total--
	p.holder(clientIP).subscribers--
	p.dropIfEmpty(clientIP)
}

// needless returns a topic that no client would miss at once, or nil.
func (o *opener) needless() *topic {
	if t := o.oldest(spareRefused); t != nil {
		return t
	}
	return o.oldest(spareLingering)
}

// makeRoom hides topics from newcomers until there is room for one more that an
// address opens. It reports false if there is none. If yielded is not nil, it was the
// topic of some clients, whose streams are to be ended once p.mu is released. p.mu
// must be held.
func (p *pool) makeRoom(clientIP string) (yielded *topic, ok bool) {
	limits := &p.opts.MaxTopics
	if h := p.perIP[clientIP]; limits.PerClientIP > 0 && h.topics() >= limits.PerClientIP {
		p.giveUp(h.opened.needless())
	}
	if len(p.topics) < limits.Total {
		return nil, true
	}
	t := p.nextToYield(clientIP)
	if t == nil {
		return nil, false
	}
	if t.spare == spareOwn || t.spare == spareShared {
		yielded = t
	}
	p.giveUp(t)
	return yielded, true
}

// nextToYield returns the topic that goes first when an address opens another, or
// nil if none may.
//
// A topic that the origin has refused goes first of all. Then it is for the address
// that has opened most topics to give up one: that which has lingered longest, else
// the newest of those that it has for itself alone. To end streams takes more than
// to end a wait: the address must have more than twice as many topics as the newcomer
// will have, so that two addresses do not end each other's by turns, and more than
// twice as many as any with a lingering topic. Last come topics that several addresses
// use, if all of them hold more than twice as many. p.mu must be held.
func (p *pool) nextToYield(clientIP string) *topic {
	if o := p.spares.most(mostRefused); o != nil {
		return o.oldest(spareRefused)
	}
	has := p.perIP[clientIP].holds()
	own, idle := p.spares.most(mostOwn), p.spares.most(mostLingering)
	least := has + 1
	if idle != nil && idle.topics >= has {
		if least = max(least, idle.topics); own == nil || own.topics <= 2*least {
			return idle.oldest(spareLingering)
		}
	}
	if own != nil && own.topics > 2*least {
		return own.newest(spareOwn)
	}
	return p.sharedToYield(2 * least)
}

// giveUp hides t from newcomers, and closes it unless it has subscribers. p.mu must
// be held.
func (p *pool) giveUp(t *topic) {
	if t.subscribers > 0 {
		p.detachTopic(t)
	} else {
		p.closeTopic(t)
	}
}

// turnAway answers a client that cannot be served now. A browser's EventSource
// comes back by itself after an event stream that ends, and never after an
// error. If the origin was asked, origins is what its answer shares.
func (p *pool) turnAway(w http.ResponseWriter, r *http.Request, why rejection, origins http.Header) error {
	p.stats.rejected.count(why)
	describe(r, outcomeRejected, string(why))
	if c := p.log().Check(zapcore.DebugLevel, "turning a client away"); c != nil {
		c.Write(zap.String("reason", string(why)))
	}
	p.warnOfLimit(why)
	control := http.NewResponseController(w)
	_ = control.SetWriteDeadline(time.Now().Add(p.dispatchTimeout()))
	closeIfUnread(w, r)
	delay := turnAwayDelay()
	if why == rejectEnding {
		// The replacement is up, or will be in a moment.
		delay = p.opts.reconnectionTime() + rand.N(time.Duration(p.opts.StreamCloseDelay)+1)
	}
	if p.opts.reject {
		copyHeader(w.Header(), origins)
		w.Header().Set("Retry-After", strconv.Itoa(int((delay+time.Second-1)/time.Second)))
		p.opts.cors.apply(w.Header(), r)
		w.WriteHeader(http.StatusServiceUnavailable)
		return nil
	}
	if origins == nil && p.needsOriginsWord(r) {
		// To a browser, a stream that its page may not read is an error for
		// good, and a connection that breaks is not.
		panic(http.ErrAbortHandler)
	}
	p.writeHeader(w, r, origins)
	var words []byte
	if p.words[p.opts.audienceOf(r)].primer {
		words = append(appendRetryField(nil, delay), '\n')
	}
	if _, err := w.Write(words); err == nil { //nolint:gosec // a number
		_ = control.Flush()
	}
	return nil // the header is out: an error page would end up in the stream
}

// Clients that are turned away come back at different times.
const (
	turnAwayMin = 5 * time.Second
	turnAwayMax = 30 * time.Second
)

func turnAwayDelay() time.Duration { return turnAwayMin + rand.N(turnAwayMax-turnAwayMin) }

// readableBy returns those headers of an origin's answer that say which pages may
// read it.
func readableBy(header http.Header) http.Header {
	some := make(http.Header)
	for name, values := range header {
		if name == "Vary" || strings.HasPrefix(name, "Access-Control-") {
			some[name] = values
		}
	}
	return some
}

// A limitLog bounds what is logged of a limit. Those that it turns away may be many
// at once, and come back: there is at most one line a minute, and none is delayed.
type limitLog struct {
	next atomic.Int64  // when there may be another line, in Unix nanoseconds
	told atomic.Uint64 // the count at the last one
}

const limitLogPause = time.Minute

// due reports whether a line is due, and how much has been counted since the last
// one, if count has the sum of all.
func (l *limitLog) due(count func() uint64) (since uint64, ok bool) {
	now, next := time.Now().UnixNano(), l.next.Load()
	if now < next || !l.next.CompareAndSwap(next, now+int64(limitLogPause)) {
		return 0, false
	}
	all := count()
	return all - l.told.Swap(all), true
}

// warnOfLimit logs that clients are turned away, if why is a limit.
func (p *pool) warnOfLimit(why rejection) {
	l := p.limitLogs[why]
	if l == nil {
		return
	}
	if n, ok := l.due(func() uint64 { return p.stats.rejected.get(why) }); ok {
		p.log().Warn("turning clients away, as a limit is reached",
			zap.String("reason", string(why)),
			zap.Uint64("clients", n))
	}
}

// warnOfYielding logs that a topic with subscribers has made room for another.
func (p *pool) warnOfYielding(t *topic) {
	p.yielded.Add(1)
	if c := p.log().Check(zapcore.DebugLevel, "ending a topic to make room for another"); c != nil {
		c.Write(zap.String("topic", t.name))
	}
	if n, ok := p.yieldLog.due(p.yielded.Load); ok {
		p.log().Warn("ending topics of the client address that has opened most, as a limit is reached",
			zap.String("reason", string(rejectTopics)),
			zap.Uint64("topics", n))
	}
}
