package jetstream

import (
	"fmt"
	"testing"
	"time"

	"github.com/sse-fanout/caddy-sse-fanout/internal/relay"
	"github.com/sse-fanout/caddy-sse-fanout/internal/sse"
)

// TestAGapInTheHistoryIsTold has the stream hold events of an earlier holder, among which some
// are missing, which the origin has no longer. A node that begins then has them as history.
// Whoever resumes in front of the gap must come past it.
func TestAGapInTheHistoryIsTold(t *testing.T) {
	t.Parallel()
	s, o := startServer(t), newOrigin()
	n := newNode(t, s, o, "a", options{})
	store := n.fleet.store
	var made time.Time
	eventually(t, "there is a stream", func() bool {
		info, err := store.info(t.Context())
		if err == nil {
			made = info.Created
		}
		return err == nil
	})
	subject := subject(store.name, store.secret.topicName("definition", "topic"))
	index := uint64(0)
	publish := func(k kind, body []byte) {
		m := message{kind: k, epoch: epoch{term: uint64(made.UnixNano())}, index: index, acked: index, part: 1, parts: 1, body: body}
		if _, err := store.js.PublishMsg(t.Context(), m.encode(subject)); err != nil {
			t.Fatal(err)
		}
		index++
	}
	events := func(from, to int) {
		for i := from; i <= to; i++ {
			publish(kindEvent, appendEvent(nil, &sse.Event{HasID: true, ID: fmt.Append(nil, i), HasData: true, Data: fmt.Append(nil, i)}))
		}
	}
	publish(kindMarker, []byte("earlier"))
	publish(kindResumed, encodeResumed(place{}, nil))
	publish(kindOpened, encodeOpening(&relay.Opening{}, "", false))
	events(1, 5)
	publish(kindOpened, encodeOpening(&relay.Opening{}, "", true))
	events(11, 15)
	o.send(15)
	o.forgot = 10

	c := newClient(n, "3")
	c.await("15")
	o.send(1)
	c.await("16").awaitAll([]string{"4", "5", "gap", "11", "12", "13", "14", "15", "16"})
	newClient(n, "12").await("16").awaitAll([]string{"13", "14", "15", "16"})
}
