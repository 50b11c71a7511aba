package relay

// End ends all subscribers, and takes no more.
func (r *Relay) End(e Ending) {
	r.mu.Lock()
	r.over = &e
	var busy []*Topic
	for t := range r.all.all() {
		if t.Subscribers() > 0 {
			busy = append(busy, t)
		} else {
			r.closeTopic(t)
		}
	}
	r.mu.Unlock()

	for _, t := range busy {
		t.end(e)
	}
	r.retire()
}

// end ends the subscribers. On exit, or for an administrator, it hurries those
// who are ending already.
func (t *Topic) end(e Ending) {
	if !t.ending.CompareAndSwap(nil, &e) {
		if e.Reason != EndExiting && e.Reason != EndDeleted {
			return
		}
		t.ending.Store(&e)
	}
	t.mu.Lock()
	t.signal()
	t.mu.Unlock()
	t.log.Wake()
	if e.Reason == EndExiting {
		for _, s := range t.roster.all() {
			s.hurry()
		}
	}
}

// Conclude ends the subscribers of the topic. Clients that come back open another.
func (t *Topic) Conclude(e Ending) {
	how := standingDetaches
	if e.Reason == EndDrained {
		how = standingMoves
	}
	t.relay.detach(t, how)
	t.end(e)
}
