package relay

import (
	"time"
)

// An Ending tells subscribers to end.
type Ending struct {
	Reason EndReason

	// Over is the time over which they end, each at a random moment.
	Over time.Duration

	// Drain lets each have what is in the log first.
	Drain bool
}

// An EndReason says why a subscriber's stream ended. It is a metric label.
type EndReason string

const (
	EndClientGone    EndReason = "client_gone"       // the client has closed its connection
	EndSlow          EndReason = "slow"              // the log has passed its cursor
	EndStalled       EndReason = "stalled"           // the client took nothing in time
	EndTimeout       EndReason = "stream_timeout"    // its time was over
	EndUpstreamEnded EndReason = "upstream_ended"    // with Config.CloseOnEnd
	EndUpstreamGone  EndReason = "upstream_gone"     // the origin answered 204
	EndRefused       EndReason = "upstream_refuse"   // the origin has said no for a minute
	EndDrained       EndReason = "drained"           // its relay was changed or removed
	EndExiting       EndReason = "exiting"           // the process exits
	EndDeleted       EndReason = "deleted"           // by an administrator
	EndPersonal      EndReason = "upstream_personal" // the origin has said that its stream is not for all
	EndYielded       EndReason = "max_topics"        // its topic has made room for that of another client
)
