package cli

// What the tests need that have sse_fanout in their Caddy, which has this package.
var (
	FanoutConfig = fanoutConfig
	FlagOf       = flagOf
	FlagsOf      = flagsOf
)
