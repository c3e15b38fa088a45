//go:build !unix

package simulate

import "time"

// Processor is the processor time that this process has used; here it is not known, and 0.
func Processor() time.Duration { return 0 }
