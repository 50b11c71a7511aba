package relay

// Three things change about a topic, each by a table of its own, since each may change
// whatever the others are:
//
//   - its link: whether the shared connection is there (under Topic.mu)
//   - its trust: whether the stream is known to be for all (under Topic.mu)
//   - its standing: who has it, and whether newcomers get it (under Relay.mu)
//
// Besides, Topic.ending says how its subscribers are to end. It is nil until then, and only
// replaced by an ending that hurries them (see Topic.end).

// A link is whether the shared connection of a topic is there.
type link uint32

const (
	linkOpening   link = iota // the origin has not answered with an event stream yet
	linkConnected             // the origin sends
	linkAway                  // the connection is lost, and asked for again
	linkRefused               // the origin has said no to those who wait: Topic.refusal
)

func (s link) String() string {
	return [...]string{"opening", "connected", "away", "refused"}[s]
}

// A linkEvent changes a link.
type linkEvent uint32

const (
	linkAccepts linkEvent = iota // the origin has answered with an event stream
	linkEnds                     // the newest connection has ended
	linkRefuses                  // its no is for those who wait, or the stream is not for all
)

func (e linkEvent) String() string {
	return [...]string{"accepts", "ends", "refuses"}[e]
}

var links = table[link, linkEvent]{of: "link", rows: []transition[link, linkEvent]{
	{linkOpening, linkAccepts, linkConnected},
	{linkOpening, linkRefuses, linkRefused},
	{linkConnected, linkAccepts, linkConnected}, // the new connection is there before the old one is broken
	{linkConnected, linkEnds, linkAway},
	{linkAway, linkAccepts, linkConnected},
	{linkAway, linkRefuses, linkRefused}, // the stream has begun a session
}}

// A trust is whether the stream of a topic is known to be for all of its subscribers, and
// begins no session of one client (see Config.Guarded).
type trust uint32

const (
	trustPending  trust = iota // no event has come, by which to tell
	trustAssumed               // it was silent for HandshakeTime, or the operator has said so
	trustShown                 // events have come, and were shared
	trustPersonal              // it begins a session: the topic is about to end
	trustRevoked               // a later connection does, when events had been shared
)

func (s trust) String() string {
	return [...]string{"pending", "assumed", "shown", "personal", "revoked"}[s]
}

// admits reports whether those who wait need wait no longer for what the stream begins with.
func (s trust) admits() bool { return s == trustAssumed || s == trustShown }

// A trustEvent changes a trust.
type trustEvent uint32

const (
	trustSilence  trustEvent = iota // HandshakeTime has passed without an event
	trustEventful                   // the first event of a connection begins no session
	trustSession                    // it begins one
)

func (e trustEvent) String() string {
	return [...]string{"silence", "event", "session"}[e]
}

var trusts = table[trust, trustEvent]{of: "trust", rows: []transition[trust, trustEvent]{
	{trustPending, trustSilence, trustAssumed},
	{trustPending, trustEventful, trustShown},
	{trustPending, trustSession, trustPersonal},
	{trustAssumed, trustEventful, trustShown},
	{trustAssumed, trustSession, trustPersonal},
	{trustShown, trustEventful, trustShown},
	{trustShown, trustSession, trustRevoked},
}}

// A standing is who has a topic, and whether newcomers get it.
type standing uint32

const (
	standingUsed      standing = iota // it has subscribers, and newcomers join them
	standingLingering                 // it has none, and waits for the next one for a while: Topic.linger
	standingAnswering                 // it has none, and gives the origin's no to those who come
	standingDetached                  // newcomers open another topic, which waits for the end of this connection
	standingMoved                     // newcomers open another topic, which does not: it leads elsewhere
	standingClosed                    // nobody has it, and its connection is ended
)

func (s standing) String() string {
	return [...]string{"used", "lingering", "answering", "detached", "moved", "closed"}[s]
}

// isCurrent reports whether newcomers join the topic.
func (s standing) isCurrent() bool { return s <= standingAnswering }

// A standingEvent changes a standing.
type standingEvent uint32

const (
	standingJoined   standingEvent = iota // a subscriber has come
	standingLingers                       // the last one has left, and the topic is kept
	standingAnswers                       // the last one has left a topic that the origin has refused
	standingDetaches                      // newcomers are to open another topic
	standingMoves                         // they are led elsewhere
	standingCloses                        // nobody needs it any more
)

func (e standingEvent) String() string {
	return [...]string{"joined", "lingers", "answers", "detaches", "moves", "closes"}[e]
}

var standings = table[standing, standingEvent]{of: "standing", rows: []transition[standing, standingEvent]{
	{standingUsed, standingJoined, standingUsed},
	{standingUsed, standingLingers, standingLingering},
	{standingUsed, standingAnswers, standingAnswering},
	{standingUsed, standingDetaches, standingDetached},
	{standingUsed, standingMoves, standingMoved},
	{standingLingering, standingJoined, standingUsed},
	{standingLingering, standingDetaches, standingDetached},
	{standingLingering, standingMoves, standingMoved},
	{standingAnswering, standingJoined, standingUsed},
	{standingAnswering, standingDetaches, standingDetached},
	{standingAnswering, standingMoves, standingMoved},
	{standingDetached, standingCloses, standingClosed},
	{standingMoved, standingCloses, standingClosed},
}}
