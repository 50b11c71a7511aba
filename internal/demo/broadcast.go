package demo

import (
	"strconv"
	"time"
)

// sentences is what the origin tells, one a second, over and over.
var sentences = [...]string{
	"This sentence left the origin once.",
	"Caddy heard it over one connection.",
	"Every client hears it from Caddy, at the same moment.",
	"The origin does not know how many are listening.",
	"It could hold five connections. It needs one.",
	"Open ten more clients: the origin will not notice.",
	"Each event has an id, so nobody loses their place.",
	"A client that comes back says the last id it heard.",
	"Then they get what they missed, and go on from there.",
	"Restart the origin: nobody will be told.",
	"The numbers go on where they stopped.",
	"That is all. It begins again.",
}

const (
	// pace is the time between two sentences.
	pace = time.Second

	// kept is how many sentences the origin can tell again: five minutes, as
	// a small table in a database would hold.
	kept = 300
)

// broadcast is the sequence of sentences that all connections see. It is a
// function of time: sentence n exists from n seconds after midnight on. So
// nothing has to run while nobody listens, a restart of the origin loses
// nothing, and the ids mean the same after a restart of the whole program.
type broadcast struct {
	midnight time.Time
}

// newBroadcast begins at the last midnight (UTC) before now. A process that
// runs for days counts on.
func newBroadcast(now time.Time) broadcast {
	// Going back from now keeps its monotonic reading, which a corrected
	// clock cannot turn back.
	return broadcast{midnight: now.Add(-now.Sub(now.UTC().Truncate(24 * time.Hour)))}
}

// newest is the number of the last sentence that exists at now.
func (b broadcast) newest(now time.Time) int {
	return int(now.Sub(b.midnight) / pace)
}

// due is the moment from which sentence n exists.
func (b broadcast) due(n int) time.Time {
	return b.midnight.Add(time.Duration(n) * pace)
}

// next is the number of the sentence with which a connection begins: the one
// after lastEventID as far as it is still kept, else the next to come.
func (b broadcast) next(lastEventID string, now time.Time) int {
	newest := b.newest(now)
	last, err := strconv.Atoi(lastEventID)
	if err != nil || last < 0 || last > newest {
		return newest + 1
	}
	return max(last+1, newest-kept+1, 1)
}

// appendSentence appends sentence n as an event.
func appendSentence(dst []byte, n int) []byte {
	dst = append(dst, "id: "...)
	dst = strconv.AppendInt(dst, int64(n), 10)
	dst = append(dst, "\ndata: "...)
	dst = append(dst, sentences[n%len(sentences)]...)
	return append(dst, "\n\n"...)
}
