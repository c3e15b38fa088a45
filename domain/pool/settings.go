package pool

import (
	"reflect"

	"github.com/rendering-resource-manager/rrm/domain"
)

// sameSettings says that two settings mean the same, so that writing them again is no event.
func sameSettings(a, b domain.Renderer) bool { return reflect.DeepEqual(a, b) }
