package relay

// A reader's phase is what its client gets now. It changes by the table below, and only the
// goroutine that calls the reader's methods changes it. When the client is to end
// (Reader.endAt) is another matter: that may come in each phase.

// A phase is what the client of a reader gets.
type phase uint32

const (
	phaseJoined    phase = iota // nothing: it is not admitted yet
	phaseEntered                // nothing yet: it is admitted, and served by a carrier
	phaseUnsettled              // heartbeats, until it is known where it begins
	phaseQueued                 // heartbeats, until its catch-up has its turn
	phaseFetching               // what a catch-up brings
	phaseLive                   // what is in the topic's log
	phaseCarried                // what a Carriage brings, to which it was handed over
	phaseClosed                 // nothing any more
)

func (s phase) String() string {
	return [...]string{"joined", "entered", "unsettled", "queued", "fetching", "live", "carried", "closed"}[s]
}

// isUnsettled reports whether it is not known yet what the client gets.
func (s phase) isUnsettled() bool { return s == phaseUnsettled || s == phaseQueued }

// waits reports whether the client may have to wait for a catch-up.
func (s phase) waits() bool { return s.isUnsettled() || s == phaseFetching }

// A phaseEvent changes a phase.
type phaseEvent uint32

const (
	phaseEnters    phaseEvent = iota // the client was admitted
	phaseHolds                       // nobody can tell yet where it begins
	phaseQueues                      // it waits for a catch-up
	phaseFetches                     // that has begun
	phaseSettles                     // there is a place in the topic's log where it goes on
	phaseContinues                   // it has all of a catch-up that another one is to continue
	phaseHandsOver                   // a carrier can go on without the reader
	phaseTakesBack                   // the client was handed over, and is to have a reader again
	phaseCloses                      // the reader is not needed any more
)

func (e phaseEvent) String() string {
	return [...]string{"enters", "holds", "queues", "fetches", "settles", "continues", "hands over", "takes back", "closes"}[e]
}

var phases = table[phase, phaseEvent]{of: "phase", rows: []transition[phase, phaseEvent]{
	{phaseJoined, phaseEnters, phaseEntered},
	{phaseJoined, phaseTakesBack, phaseLive},
	{phaseJoined, phaseCloses, phaseClosed},
	{phaseEntered, phaseHolds, phaseUnsettled},
	{phaseEntered, phaseQueues, phaseQueued},
	{phaseEntered, phaseSettles, phaseLive},
	{phaseEntered, phaseCloses, phaseClosed},
	{phaseUnsettled, phaseHolds, phaseUnsettled},
	{phaseUnsettled, phaseQueues, phaseQueued},
	{phaseUnsettled, phaseSettles, phaseLive},
	{phaseUnsettled, phaseCloses, phaseClosed},
	{phaseQueued, phaseHolds, phaseQueued}, // the topic has lost its connection meanwhile
	{phaseQueued, phaseFetches, phaseFetching},
	{phaseQueued, phaseSettles, phaseLive},
	{phaseQueued, phaseCloses, phaseClosed},
	{phaseFetching, phaseSettles, phaseLive},
	{phaseFetching, phaseContinues, phaseUnsettled},
	{phaseFetching, phaseCloses, phaseClosed},
	{phaseLive, phaseHandsOver, phaseCarried},
	{phaseLive, phaseCloses, phaseClosed},
	{phaseCarried, phaseCloses, phaseClosed},
}}
