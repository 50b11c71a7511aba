package ssefanout

import (
	"maps"
	"net/http"
	"slices"
	"time"
)

// The origin's answers may vary by headers that clients bring and that vary does
// not name. The pool learns from the Vary of an answer which these are, and they
// join the key, and go to the origin, as if vary named them.

const (
	// maxLearned is how many headers can join one key. An answer that varies by
	// more is not worth sharing.
	maxLearned = 8

	// learnedTime is how long it is known by which headers the answers to a key
	// vary. After that, the next client finds it out again.
	learnedTime = time.Hour
)

// varyingBy returns a request whose key has the values of more headers.
func (req *topicRequest) varyingBy(names []string, header http.Header) *topicRequest {
	more := *req
	if len(req.learned) == 0 {
		more.base = req.key()
	}
	more.header = maps.Clone(req.header)
	more.learned = sortedNames(req.learned, names)
	for _, name := range names {
		if values, ok := header[name]; ok {
			more.header[name] = values
		}
	}
	return &more
}

// learn remembers that the answers to req vary by more headers.
func (p *pool) learn(req *topicRequest, names []string) {
	base := req.base
	if len(req.learned) == 0 {
		base = req.key()
	}
	p.varying.update(base, learnedTime, func(known []string) []string {
		all := sortedNames(known, req.learned, names)
		if len(all) > maxLearned {
			return known
		}
		return all
	})
}

// sortedNames returns the names in several lists, each once.
func sortedNames(lists ...[]string) []string {
	all := slices.Concat(lists...)
	slices.Sort(all)
	return slices.Compact(all)
}
