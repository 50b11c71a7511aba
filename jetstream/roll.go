package jetstream

import (
	"encoding/json"
	"slices"
	"time"

	"github.com/nats-io/nats.go"
)

// A roll is what a node tells the others of the leases that it holds, so that they need not ask
// for each. It is no message of the stream: who does not get it asks.
type roll struct {
	// Leases are those that the node has renewed a moment ago.
	Leases []string `json:"leases"`
}

// rollLength is how many leases a roll has at most: some 30 bytes each, far below any
// max_payload of NATS.
const rollLength = 1000

// rolls returns the subject of rolls. It is none of the stream's.
func rolls(stream string) string { return stream + ".leases.held" }

// callRolls tells the others which leases this node holds, and hears what they hold, until the
// fleet is over.
func (f *Fleet) callRolls() {
	sub, err := f.store.conn.Subscribe(rolls(f.store.name), f.hearRoll)
	if err != nil {
		f.store.notice("listening for the leases of other nodes", rolls(f.store.name), err)
		return
	}
	defer func() { _ = sub.Unsubscribe() }()
	tick := time.NewTicker(f.store.settings.Lease / 3)
	defer tick.Stop()
	for {
		select {
		case <-f.ctx.Done():
			return
		case <-tick.C:
			f.callRoll()
		}
	}
}

func (f *Fleet) callRoll() {
	var held []string
	for _, s := range f.all() {
		if s.contest.lease.isFresh() {
			held = append(held, s.contest.lease.key)
		}
	}
	for some := range slices.Chunk(held, rollLength) {
		if body, err := json.Marshal(roll{some}); err == nil {
			_ = f.store.conn.Publish(rolls(f.store.name), body) // the next one may come to the others
		}
	}
}

func (f *Fleet) hearRoll(msg *nats.Msg) {
	var r roll
	if json.Unmarshal(msg.Data, &r) != nil {
		return
	}
	held := make(map[string]bool, len(r.Leases))
	for _, key := range r.Leases {
		held[key] = true
	}
	for _, s := range f.all() {
		if held[s.contest.lease.key] {
			s.contest.vouch()
		}
	}
}
