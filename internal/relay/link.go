package relay

import (
	"time"

	"github.com/sse-fanout/caddy-sse-fanout/internal/hub"
)

// connected is called when the origin has answered with an event stream. It returns
// which connection of the topic that is, counted from 1, and how long the topic was without
// one. From the second on, the stream may begin with what is in the log already. id is
// that of the request, brought tells whether it came from the client that opened the
// topic, and blamed is the id of the request before, which got no stream.
func (t *Topic) connected(id string, brought bool, blamed string, o *Opening) (nth int, without time.Duration) {
	followers := t.followers()
	t.mu.Lock()
	if !t.IsConnected() {
		without = time.Since(t.awaySince)
	}
	if t.connects == 0 {
		t.opened, t.first = t.log.Newest().Cursor, t.firstPosition(false).Cursor
	}
	switch {
	case brought && !t.isOpened:
		t.isOpened, t.openedAt = true, t.log.Newest().Cursor
	case t.connects > 0 && id == "", (o.Gap || !o.News && id == "") && t.log.Newest().Cursor > 0:
		// Events may have been sent while nobody listened, and nothing tells
		// which: whoever follows the log comes past this. The log may have had
		// events before the first connection, from a source that remembers them.
		t.miss(followers)
	}
	if blamed != "" {
		t.blamedID, t.blamedAt, t.blamedSince = blamed, t.log.Newest().Cursor, time.Now()
	}
	t.header = o.Header
	t.linkOn(linkAccepts)
	t.connects++
	nth = t.connects
	if t.trust.is(trustPending) && t.handshake == nil && !t.isClosed() {
		t.handshake = time.AfterFunc(HandshakeTime, t.trustSilent)
	}
	t.signal()
	t.mu.Unlock()

	t.log.Wake()
	if t.catchups.anyParked.Load() {
		t.catchups.unpark(false)
	} else {
		t.catchups.wake()
	}
	return nth, without
}

// followers is how many subscribers read the log.
func (t *Topic) followers() int { return max(0, t.Subscribers()-int(t.unsettled.Load())) }

// miss puts a notice of a gap into the log. t.mu must be held.
func (t *Topic) miss(followers int) {
	t.relay.stats.Gaps.Add(uint64(followers))
	end := t.log.Newest()
	t.notice, t.noticeID = end.Cursor+1, end.ID
	t.log.Append(hub.Entry{Gap: true})
}

// missed is called when a source says that events are missing before what comes next.
func (t *Topic) missed() {
	followers := t.followers()
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.log.Newest().Cursor > 0 {
		t.miss(followers)
	}
}

// disconnected is called when the nth connection has ended, which may have been
// replaced by another meanwhile.
func (t *Topic) disconnected(nth int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.IsConnected() || t.connects != nth {
		return
	}
	t.linkOn(linkEnds)
	t.awaySince = time.Now()
	t.signal()
}

// SourceEnded is called when a request that Follow has left behind has ended.
func (t *Topic) SourceEnded() { t.catchups.wake() }
