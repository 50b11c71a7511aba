package relay

// Resolve returns the newest id in the log of the topic for key of which match reports true.
// It is for clients that bring something shorter than an id. It looks at all ids that the log
// has, if need be.
func (r *Relay) Resolve(key string, match func(id string) bool) (id string, found bool) {
	r.mu.Lock()
	t := r.topics[key]
	r.mu.Unlock()
	if t == nil {
		return "", false
	}
	return t.log.FindID(match)
}
