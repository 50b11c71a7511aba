package ssefanout

import (
	"errors"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/sse-fanout/caddy-sse-fanout/internal/hub"
)

// subscribe makes r, which resumes with id, a subscriber of the topic for req and
// returns when its stream has ended. If nothing was written because r must pass
// one to one, the error is a passReason, and if it must join another topic, a
// joinAgainError.
func (p *pool) subscribe(w http.ResponseWriter, r *http.Request, req *topicRequest, id claim, arrived arrival) error {
	ip := countedAddress(clientIP(r))
	t, joined, rejected, passed := p.join(arrived.handler, req, id, ip)
	switch {
	case passed != "":
		return passed
	case rejected != "":
		return p.turnAway(w, r, rejected, nil)
	}
	t.seek(arrived.handler)
	s := &session{
		subscriber: newSubscriber(t, ip, p.opts.audienceOf(r)),
		timer:      time.NewTimer(time.Hour),
		w:          w,
		r:          r,
		control:    http.NewResponseController(w),
		log:        t.log,
		joined:     joined,
		resumeWith: id,
	}
	s.bystander = id.id == "" || id.id != t.opener.id
	defer func() {
		if s.socket.Load() == nil {
			p.leave(t, ip)
		}
	}()
	describeTopic(r, t)
	s.session.Store(s)
	defer s.timer.Stop()
	defer s.leaveCatchup()
	defer s.setUnsettled(false)

	a := t.admit(r.Context(), arrived)
	switch {
	case a.gone:
		describe(r, pending.String(), string(endClientGone))
		return nil
	case a.passed != "":
		return a.passed
	case a.moved && arrived.mayJoinAgain:
		return joinAgainError(nil)
	case a.rejected != "":
		return p.turnAway(w, r, a.rejected, nil)
	case a.refusal != nil && a.refusal.isPersonal(p.opts):
		return a.refusal.restriction.err()
	case a.refusal != nil:
		describe(r, outcomeRefused, a.refusal.verdict.String())
		p.explainRefusal(t, a.refusal, r)
		return a.refusal.serve(w, r, p.opts)
	}
	var resumeIdle func()
	s.deadline, resumeIdle = p.newDeadline(w, r)
	defer resumeIdle()
	t.roster.enter(s.subscriber)
	defer func() {
		if s.socket.Load() == nil {
			t.roster.leave(s.subscriber)
		}
	}()
	s.detachable = p.handsOver(w, r)
	if s.detachable {
		// A connection that is taken from the HTTP server serves no other request.
		w.Header().Set("Connection", "close")
	}
	p.explainPrivate(t, a.header)
	p.writeHeader(w, r, a.header)
	reason := s.run(r.Context().Done())

	exiting := s.deadline.end()
	if exiting && mayBeUnread(r) {
		// net/http reads what is left of a body before it closes the connection.
		_ = s.control.SetReadDeadline(time.Now())
	}
	if s.socket.Load() != nil {
		describeEnd(r, s, reasonHandedOver)
		return nil
	}
	describeEnd(r, s, string(reason))
	s.ended(reason, s.events.Load(), s.bytes.Load())
	if reason == endStalled {
		if exiting {
			breakConn(r)
		}
		// The stream ends inside an event, which a client must not take for a
		// clean end.
		panic(http.ErrAbortHandler)
	}
	return nil
}

// needsOriginsWord reports whether only the origin can tell if the page behind r
// may read the stream. Such a client cannot be held without it: a browser gives
// up for good on an answer that does not allow its page.
func (p *pool) needsOriginsWord(r *http.Request) bool {
	origin := r.Header.Get("Origin")
	if origin == "" || p.opts.cors.enabled() {
		return false
	}
	u, err := url.Parse(origin)
	return err != nil || !strings.EqualFold(u.Host, r.Host)
}

// writeHeader sends the header of an event stream.
func (p *pool) writeHeader(w http.ResponseWriter, r *http.Request, origins http.Header) {
	header := w.Header()
	copyHeader(header, origins)
	p.opts.cors.apply(header, r)
	if !isEventStream(header) {
		header.Set("Content-Type", "text/event-stream")
	}
	// no-transform keeps compressing handlers away, ours and those on the way;
	// the two others are what nginx and RFC 10036 have for the same purpose.
	header.Set("Cache-Control", "no-cache, no-transform")
	header.Set("X-Accel-Buffering", "no")
	header.Set("Incremental", "?1")
	w.WriteHeader(http.StatusOK)
}

// A session is the part of a subscriber's life in which the goroutine of its request
// serves it: all of it, or until its connection is handed over to direct delivery.
type session struct {
	*subscriber
	w http.ResponseWriter
	r *http.Request

	// detachable is set while the connection may be handed over.
	detachable bool

	control  *http.ResponseController
	deadline *deadline // of writes

	log    *hub.Topic // that it reads: the topic's or a catch-up's
	cursor hub.Cursor // of the next entry there
	beat   uint64     // heartbeats seen there

	wake <-chan struct{} // that it waits on, or waited on last

	// joined is where in the topic's log it begins if nothing better is found.
	joined hub.Cursor

	// resumeWith is the id that the client brought, and unsettled is set until
	// it is known whether the stream can go on from there.
	resumeWith claim
	unsettled  bool
	leg        leg // the catch-up that has ended with that id, if one has
	catchup    *catchup
	spoken     time.Time // when it was last written to, while it waits
	retry      []byte    // to be written in front of the first event: alone, it would be a block without data

	ending *ending // the last seen
	endAt  time.Time
	reason endReason   // why, at endAt
	timer  *time.Timer // makes run look again

	batches uint64 // delivered

	// Written by the session alone, read by whoever asks (see subscriber).
	events, bytes atomic.Uint64 // delivered
	start         atomic.Uint64 // the cursor at which there were no events yet
	inLog         atomic.Bool   // it reads the topic's log
	deleted       atomic.Bool   // by an administrator, who also fires the timer
}

// maxWrite bounds what one write may take, so that a slow client that makes
// progress is not taken for one that does not.
const maxWrite = 64 << 10

// run sends the primer and then all that comes, until the stream ends or the
// connection is handed over.
func (s *session) run(gone <-chan struct{}) endReason {
	t := s.topic
	if d := time.Duration(t.pool.opts.StreamTimeout); d > 0 {
		s.endWithin(d-d/5, d/5, endTimeout)
	}
	if err := s.write(s.primer()); err != nil {
		return s.failed(err)
	}

	for {
		if e := t.ending.Load(); e != s.ending {
			s.ending = e
			s.endWithin(0, e.Over, e.Reason)
		}
		if s.deleted.Load() {
			s.endWithin(0, 0, endDeleted)
		}
		due := s.isDue()
		if due && (s.ending == nil || !s.ending.Drain) {
			return s.end()
		}

		out, batch := s.next()
		switch {
		case batch.Lagged:
			s.reason = endSlow
			return s.end()
		case len(out) > 0:
			var before []byte
			if batch.Next != s.cursor && !batch.Gap {
				before, s.retry = s.retry, nil
			}
			if err := s.write(before, out); err != nil {
				return s.failed(err)
			}
			s.took(batch)
			continue
		case due:
			return s.end()
		case t.ending.Load() != s.ending:
			continue // it came before the wake-up to wait for was taken
		}

		if !s.endAt.IsZero() {
			s.timer.Reset(time.Until(s.endAt))
		}
		if s.deleted.Load() {
			continue // it came before the timer was set
		}
		if s.detachable && len(s.retry) == 0 && s.handOver() {
			return ""
		}
		select {
		case <-batch.Wake:
		case <-s.timer.C:
		case <-gone:
			return endClientGone
		}
	}
}

// next returns what is to be sent now, and the batch of the log that it is of.
// If there is nothing to send, the batch tells when to look again.
func (s *session) next() ([]byte, hub.Batch) {
	batch := hub.Batch{Next: s.cursor}
	if s.unsettled {
		// Look for a change before waiting for one.
		batch.Wake, batch.Beat = s.topic.log.Watch(s.wake)
		s.wake = batch.Wake
		if id, how := s.settle(); how == gap {
			return s.gapNotice(id)
		}
	}
	if !s.unsettled {
		batch = s.read()
	}
	if s.catchup != nil && len(batch.Bytes) == 0 && !batch.Lagged && !s.unsettled {
		if over, spliced, at, why := s.catchup.result(); over {
			batch = s.read()
			switch {
			case len(batch.Bytes) > 0, batch.Lagged:
			case errors.Is(why, errTopicClosing):
				s.comeBack()
				return nil, batch
			case goesOn(why):
				s.comeAgain()
				return s.next()
			default:
				return s.endCatchup(spliced, at)
			}
		}
	}
	if len(batch.Bytes) == 0 && s.isToBeat(&batch) && !batch.Lagged {
		s.topic.pool.stats.heartbeats.Add(1)
		return s.words().heartbeat, batch
	}
	return batch.Bytes, batch
}

// isToBeat reports whether s gets a heartbeat: that of the topic, or one of its own, but
// not both at once.
func (s *session) isToBeat(batch *hub.Batch) bool {
	if batch.Beat != s.beat && s.waits() && time.Since(s.spoken) < time.Duration(s.topic.pool.opts.Heartbeat.Interval)/8 {
		s.beat = batch.Beat
	}
	return batch.Beat != s.beat || s.isLeftOut()
}

// isLeftOut reports whether s needs a heartbeat of its own, because it waits while
// others get events: only a topic that is quiet has a beat for all.
func (s *session) isLeftOut() bool {
	if !s.waits() {
		return false
	}
	interval := time.Duration(s.topic.pool.opts.Heartbeat.Interval)
	return interval > 0 && time.Since(s.spoken) >= interval
}

// waits reports whether s may have to wait for a catch-up.
func (s *session) waits() bool { return s.unsettled || s.catchup != nil }

// read returns what the log has at the cursor.
func (s *session) read() hub.Batch {
	batch := s.log.Read(s.cursor, s.wake)
	if batch.Wake != nil {
		s.wake = batch.Wake
	}
	if batch.Gap {
		batch.Bytes = s.words().gap
	}
	return batch
}

// follow makes s read a log from a cursor on.
func (s *session) follow(log *hub.Topic, cursor hub.Cursor) {
	s.setUnsettled(false)
	s.log, s.cursor = log, cursor
	s.noteStart()
	s.beat = log.Look(cursor).Beat
}

// took accounts for a batch that was sent.
func (s *session) took(batch hub.Batch) {
	s.beat = batch.Beat
	n := uint64(batch.Next - s.cursor)
	if n == 0 {
		return
	}
	s.cursor = batch.Next
	s.events.Add(n)
	s.bytes.Add(uint64(len(batch.Bytes)))
	stats := s.topic.pool.stats
	stats.delivered.Add(n)
	stats.deliveredBytes.Add(uint64(len(batch.Bytes)))
	s.sampleDelivery(batch)
}

// appendRetryField appends a field that sets the client's reconnection time.
func appendRetryField(b []byte, d time.Duration) []byte {
	b = append(b, "retry: "...)
	b = strconv.AppendInt(b, d.Milliseconds(), 10)
	return append(b, '\n')
}

// reconnectionTime is what clients are told: the operator's word, else the
// origin's, else what browsers do by themselves.
func (t *topic) reconnectionTime() time.Duration {
	if d, said := t.saidRetry(); said {
		return d
	}
	return defaultRetry
}

// saidRetry returns the reconnection time that the operator or the origin has named.
func (t *topic) saidRetry() (d time.Duration, said bool) {
	if t.pool.opts.Retry > 0 {
		return time.Duration(t.pool.opts.Retry), true
	}
	d = time.Duration(t.upstream.retry.Load())
	return d, d >= 0
}

// reconnectionTime is what clients are told if the origin has said nothing.
func (o *Options) reconnectionTime() time.Duration {
	if o.Retry > 0 {
		return time.Duration(o.Retry)
	}
	return defaultRetry
}

// endWithin makes the stream end at a random moment within spread after base,
// unless it is to end earlier anyway.
func (s *session) endWithin(base, spread time.Duration, reason endReason) {
	if spread > 0 {
		base += rand.N(spread)
	}
	at := time.Now().Add(base)
	if s.endAt.IsZero() || at.Before(s.endAt) {
		s.endAt, s.reason = at, reason
	}
}

func (s *session) isDue() bool {
	return !s.endAt.IsZero() && !time.Now().Before(s.endAt)
}

// end ends the stream between two events.
func (s *session) end() endReason {
	if words := s.Farewell(s.reason); len(words) > 0 {
		if err := s.write(words); err != nil {
			return s.failed(err)
		}
	}
	// What net/http writes to end the response must not wait for ever.
	s.deadline.last(s.topic.pool.dispatchTimeout())
	return s.reason
}

// failed says why a write failed.
func (s *session) failed(err error) endReason {
	if errors.Is(err, os.ErrDeadlineExceeded) || s.deadline.passed() {
		return endStalled
	}
	return endClientGone
}

func (p *pool) dispatchTimeout() time.Duration { return time.Duration(p.opts.DispatchTimeout) }

// setDeadline gives a write the time it may take without progress.
func (s *session) setDeadline() {
	e := s.topic.ending.Load()
	s.deadline.set(s.topic.pool.dispatchTimeout(), e != nil && e.Reason == endExiting)
}

// write sends what is given and flushes it.
func (s *session) write(parts ...[]byte) error {
	for _, p := range parts {
		for len(p) > 0 {
			n := min(len(p), maxWrite)
			s.setDeadline()
			if _, err := s.w.Write(p[:n]); err != nil {
				return err
			}
			p = p[n:]
		}
	}
	if err := s.control.Flush(); err != nil {
		return err
	}
	s.deadline.clear()
	if s.waits() {
		s.spoken = time.Now()
	}
	return nil
}

// noteStart lets others know from where s reads. As each event takes its cursor
// one further, that is all they need to know where it is.
func (s *session) noteStart() {
	s.start.Store(uint64(s.cursor) - s.events.Load()) // may wrap around
	s.inLog.Store(s.log == s.topic.log)
}

func (s *session) position() (cursor uint64, ok bool) {
	return s.start.Load() + s.events.Load(), s.inLog.Load()
}
