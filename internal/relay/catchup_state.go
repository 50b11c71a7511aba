package relay

// Two things change about a catch-up, each by a table of its own:
//
//   - its stage: whether it waits, or has a connection (under catchups.mu)
//   - its progress: how far it is from meeting the topic's log (under catchup.mu)
//
// The progress changes only in stageRunning and stageResting. One exception: a catch-up that
// loses its place in the queue (catchups.expel) fails.

// A stage is what a catch-up has of the connections that its topic may have for catch-ups.
type stage uint32

const (
	stageWaiting stage = iota // for its turn
	stageParked               // for the topic's next event, as the origin is quiet (catchup_quiet.go)
	stageRunning              // it has a connection
	stageResting              // its id was refused, and others have its place until it is known what that means
	stageEnded                // it is over, or nobody waits for it any more
)

func (s stage) String() string {
	return [...]string{"waiting", "parked", "running", "resting", "ended"}[s]
}

// isQueued reports whether a catch-up has not started.
func (s stage) isQueued() bool { return s <= stageParked }

// isStarted reports whether it has, and is not over.
func (s stage) isStarted() bool { return s == stageRunning || s == stageResting }

// A stageEvent changes a stage.
type stageEvent uint32

const (
	stageParks    stageEvent = iota // the one that it continues has found the origin quiet
	stageResumes                    // an event has come, or its pause is over
	stageStarts                     // it is its turn
	stageRests                      // the origin has refused its id
	stageProceeds                   // it asks again all the same
	stageEnds                       // it is over, is given up, or has no subscribers
)

func (e stageEvent) String() string {
	return [...]string{"parks", "resumes", "starts", "rests", "proceeds", "ends"}[e]
}

var stages = table[stage, stageEvent]{of: "stage", rows: []transition[stage, stageEvent]{
	{stageWaiting, stageParks, stageParked},
	{stageWaiting, stageStarts, stageRunning},
	{stageWaiting, stageEnds, stageEnded},
	{stageParked, stageResumes, stageWaiting},
	{stageParked, stageEnds, stageEnded},
	{stageRunning, stageRests, stageResting},
	{stageRunning, stageEnds, stageEnded},
	{stageResting, stageProceeds, stageRunning},
	{stageResting, stageEnds, stageEnded},
}}

// A progress is how far a catch-up is from meeting its topic's log.
type progress uint32

const (
	progressFetching progress = iota // it needs more from the origin
	progressWhole                    // the log has come to what is here: nothing more is needed from the origin
	progressJoined                   // it is over, and its subscribers go on in the topic's log
	progressFailed                   // it is over: catchup.why
)

func (s progress) String() string {
	return [...]string{"fetching", "whole", "joined", "failed"}[s]
}

func (s progress) isOver() bool { return s >= progressJoined }

// A progressEvent changes a progress.
type progressEvent uint32

const (
	progressMeets   progressEvent = iota // the log has come to an event that is here
	progressParts                        // there is a gap in the log, which may never have the last event here
	progressSplices                      // both have an event at which nothing is missing
	progressFails                        // there will be none
)

func (e progressEvent) String() string {
	return [...]string{"meets", "parts", "splices", "fails"}[e]
}

var progresses = table[progress, progressEvent]{of: "progress", rows: []transition[progress, progressEvent]{
	{progressFetching, progressMeets, progressWhole},
	{progressFetching, progressSplices, progressJoined},
	{progressFetching, progressFails, progressFailed},
	{progressWhole, progressParts, progressFetching},
	{progressWhole, progressSplices, progressJoined},
	{progressWhole, progressFails, progressFailed},
}}
