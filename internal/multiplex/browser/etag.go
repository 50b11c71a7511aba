package browser

import (
	"crypto/sha256"
	"encoding/hex"
)

// etags are the validators of the files, by name.
var etags = func() map[string]string {
	tags := make(map[string]string)
	for name := range contentTypes {
		content, err := embedded.ReadFile(name)
		if err != nil {
			panic(err) // it is embedded
		}
		sum := sha256.Sum256(content)
		tags[name] = `"` + hex.EncodeToString(sum[:8]) + `"`
	}
	return tags
}()
