package raster

import (
	"image"

	"github.com/rendering-resource-manager/rrm/cmd/rrm-renderer/internal/scene"
)

// haloOf is how far from a sample, in samples, shading looks at its
// surroundings in a picture so many samples wide.
func haloOf(w int) int { return max(1, w/400) }

type rgb struct{ r, g, b float32 }

func (c *rgb) add(o rgb)           { c.r, c.g, c.b = c.r+o.r, c.g+o.g, c.b+o.b }
func (c rgb) scaled(k float32) rgb { return rgb{c.r * k, c.g * k, c.b * k} }
func (c rgb) mixed(o rgb, t float32) rgb {
	return rgb{c.r + (o.r-c.r)*t, c.g + (o.g-c.g)*t, c.b + (o.b-c.b)*t}
}

// lights are unit vectors in the model's space that move with the eye.
type lights struct{ key, rim, half, up, back scene.V3 }

func (p *projection) lights() lights {
	key := p.right.Mul(0.5).Add(p.up.Mul(0.7)).Add(p.back.Mul(0.6)).Unit()
	rim := p.right.Mul(-0.8).Add(p.up.Mul(0.25)).Add(p.back.Mul(-0.35)).Unit()
	return lights{key: key, rim: rim, half: key.Add(p.back).Unit(), up: p.up, back: p.back}
}

// shade averages the samples of the pixel rows [top, bottom) into the picture.
func shade(img *image.RGBA, l *layer, p *projection, samples, top, bottom int) {
	li := p.lights()
	share := 1 / float32(samples*samples)
	for y := top; y < bottom; y++ {
		sky := background(p, (float32(y)+0.5)*float32(samples))
		for x := range img.Rect.Dx() {
			var sum rgb
			for j := y * samples; j < (y+1)*samples; j++ {
				for i := x * samples; i < (x+1)*samples; i++ {
					o := (j-l.y0)*l.w + i
					if l.inverseZ[o] == 0 {
						sum.add(sky)
						continue
					}
					sum.add(l.sample(o, i, j, p, &li, sky))
				}
			}
			c := sum.scaled(share)
			d := dither(x, y)
			pix := img.Pix[img.PixOffset(x, y):][:4]
			pix[0], pix[1], pix[2], pix[3] = level(c.r+d), level(c.g+d), level(c.b+d), 255
		}
	}
}

// sample lights one sample: a soft sky, a key light with a highlight, a rim,
// darkening beside what is nearer (eye-dome lighting), and some haze with depth.
func (l *layer) sample(o, x, y int, p *projection, li *lights, sky rgb) rgb {
	n := l.normal[o].Unit()
	facing := n.Dot(li.back)
	if facing < 0 { // the inside of an open mesh is lit as its outside
		n, facing = n.Mul(-1), -facing
	}
	light := 0.24 + 0.62*max(0, n.Dot(li.key)) + 0.28*(0.5+0.5*n.Dot(li.up))
	light += 0.25 * max(0, n.Dot(li.rim)) * (1 - facing)
	light /= 1 + 14*l.occlusion(o, x, y)
	gloss := max(0, n.Dot(li.half))
	gloss *= gloss
	gloss *= gloss
	gloss *= gloss
	gloss *= gloss
	gloss *= gloss // to the 32nd
	c := l.color[o]
	lit := rgb{float32(c >> 16 & 255), float32(c >> 8 & 255), float32(c & 255)}.scaled(light)
	lit.add(rgb{46, 46, 46}.scaled(gloss))
	depth := (1/l.inverseZ[o] - (p.distance - 1)) / 2
	return lit.mixed(sky, 0.25*min(1, max(0, depth)))
}

var around = [8][2]int{{2, 0}, {-2, 0}, {0, 2}, {0, -2}, {1, 1}, {-1, 1}, {1, -1}, {-1, -1}}

// occlusion is how much nearer the surroundings are, relative to the depth:
// eye-dome lighting after Boucheny (2009), with eight neighbours.
func (l *layer) occlusion(o, x, y int) float32 {
	h := haloOf(l.w)
	own := 1 / l.inverseZ[o]
	var sum float32
	for _, d := range around {
		qx, qy := x+d[0]*h/2, y+d[1]*h/2
		if qx < 0 || qx >= l.w || qy < l.y0 || qy >= l.y1 {
			continue
		}
		if nearer := l.inverseZ[(qy-l.y0)*l.w+qx]*own - 1; nearer > 0 {
			sum += min(0.06, nearer)
		}
	}
	return sum / 2
}

// background is a dark gradient with a faint horizon. It changes with the row
// only, which makes a PNG a third as large as a glow in the middle does.
func background(p *projection, y float32) rgb {
	t := y / float32(p.h)
	glow := max(0, 1-4*(t-0.52)*(t-0.52))
	return rgb{12 + 18*glow + 8*(1-t), 15 + 20*glow + 8*(1-t), 22 + 26*glow + 9*(1-t)}
}

// bayer is the ordered dither matrix of Bayer (1973).
var bayer = [4][4]float32{{0, 8, 2, 10}, {12, 4, 14, 6}, {3, 11, 1, 9}, {15, 7, 13, 5}}

// dither is what to add before rounding down, so that the gradient shows no
// steps. A pattern that repeats costs a PNG little; noise made it five times as large.
func dither(x, y int) float32 { return (bayer[y&3][x&3] + 0.5) / 16 }

func level(x float32) uint8 { return uint8(min(255, max(0, x))) }
