package format

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/rendering-resource-manager/rrm/cmd/rrm-renderer/internal/raster"
	"github.com/rendering-resource-manager/rrm/cmd/rrm-renderer/internal/scene"
)

// Real reconstructions load as they are, with what is odd in them, and show
// thousands of pixels of branches.
func TestRealNeurons(t *testing.T) {
	dir := filepath.Join("..", "..", "..", "..", "..", "shared", "data", "models")
	names, err := filepath.Glob(filepath.Join(dir, "*.swc"))
	if err != nil || len(names) == 0 {
		t.Skipf("no real neurons in %s", dir)
	}
	for _, path := range names {
		name := filepath.Base(path)
		s, err := Load(context.Background(), os.DirFS(dir), name, scene.Unmetered, func(float64) {})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if n := len(s.Capsules); n < 4500 || n > 6000 {
			t.Errorf("%s: %d capsules", name, n)
		}
		img, err := raster.New(2).Draw(context.Background(), s, raster.View{
			Width: 400, Height: 400, Samples: 2, Camera: raster.Camera{Yaw: 30, Pitch: 15, Distance: 2.6, FOV: 40},
		})
		if err != nil {
			t.Fatal(err)
		}
		bright := 0
		for i := 0; i < len(img.Pix); i += 4 {
			if max(img.Pix[i], img.Pix[i+1], img.Pix[i+2]) > 80 {
				bright++
			}
		}
		if bright < 1500 || bright > 60000 {
			t.Errorf("%s: %d bright pixels", name, bright)
		}
	}
}
