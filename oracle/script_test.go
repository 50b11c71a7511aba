package oracle

import (
	"fmt"
	"slices"
	"time"
)

// The rounds of the script, each with streams of its own.
const (
	roundForwards = iota
	roundBackwards
	roundCrowd
	roundReload
)

// Names of visits in messages, by which judges find them.
const (
	whatStays      = "connected before the reload"
	whatComesAgain = "connecting after the reload"
)

// play is what happens under the first configuration. It is the same in both
// variants of a case: every order in which clients open, join and leave a stream
// may make a difference. If the configuration will change, all connect once.
func (r *run) play() {
	ids := r.test.identities()
	if r.test.after != "" {
		r.stay()
		return
	}
	r.round(ids, roundForwards)
	slices.Reverse(ids)
	r.round(ids, roundBackwards)
	r.gather()
}

// round connects all clients in one order: to streams that are not open yet, to
// streams that other clients have opened, and to streams that all clients have left.
func (r *run) round(ids []identity, round int) {
	first := r.connectAll(fmt.Sprintf("round %d, first", round), ids, round)
	r.tick()
	later := slices.Clone(ids)
	slices.Reverse(later)
	second := r.connectAll(fmt.Sprintf("round %d, later", round), later, round)
	r.tick()
	r.leave(first)
	r.tick()
	r.leave(second)
	for _, id := range ids {
		v := r.connect(fmt.Sprintf("round %d, alone", round), id, round)
		r.tick()
		r.leave([]*visit{v})
	}
}

// crowdSize is the number of equal clients that connect at once.
const crowdSize = 4

// gather counts the streams that origins begin for a crowd.
func (r *run) gather() {
	before := r.origins.count()
	ids := r.test.crowd
	if ids == nil {
		ids = []identity{plain, another}
	}
	crowd := r.connectAll("in the crowd", slices.Repeat(ids, crowdSize/len(ids)), roundCrowd)
	r.tick()
	r.crowd = r.origins.count() - before
	r.leave(crowd)
}

// stay connects the clients that are there when the configuration changes.
func (r *run) stay() {
	for _, v := range r.connectAll(whatStays, r.test.identities(), roundReload) {
		v.returns = true
	}
	r.tick()
}

// After a reload, streams may move to the new configuration, or end, at any time. No
// verdict depends on when: these bound how long, and how often, events are sent.
const (
	looks     = 8
	lookPause = 20 * time.Millisecond
)

// playOn is what happens under the second configuration.
func (r *run) playOn() {
	if r.test.after == "" {
		return
	}
	r.tick()
	ids := r.test.identities()
	r.connectAll(whatComesAgain, ids, roundReload)
	r.tick()
	slices.Reverse(ids)
	r.connectAll(whatComesAgain, ids, roundReload)
	pause := time.NewTicker(lookPause)
	defer pause.Stop()
	for range looks {
		r.tick()
		<-pause.C
	}
}
