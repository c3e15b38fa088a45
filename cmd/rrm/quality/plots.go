package main

import (
	"fmt"
	"image/color"
	"math"
	"os"
	"path/filepath"
	"strconv"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"

	"github.com/rendering-resource-manager/rrm/domain"
)

// The size of a plot: that of a page of text.
const (
	plotWidth  = 9 * vg.Inch
	plotHeight = 5 * vg.Inch
)

// look is how a policy is drawn, the same in all plots. The hues are those of
// Okabe and Ito (2008), which the colour-blind tell apart.
type look struct {
	color  color.RGBA
	width  vg.Length
	dashes []vg.Length
	shape  draw.GlyphDrawer
}

var looks = map[string]look{
	domain.PlaceTTFF:        {color.RGBA{213, 94, 0, 255}, 2.5, nil, draw.CircleGlyph{}},
	domain.PlaceAllWarm:     {color.RGBA{0, 0, 0, 255}, 1, []vg.Length{5, 3}, draw.CrossGlyph{}},
	domain.PlaceBelady:      {color.RGBA{120, 120, 120, 255}, 1, []vg.Length{5, 3}, draw.PlusGlyph{}},
	domain.PlaceWarmFirst:   {color.RGBA{0, 114, 178, 255}, 1.2, nil, draw.SquareGlyph{}},
	domain.PlaceHashBounded: {color.RGBA{0, 158, 115, 255}, 1.2, nil, draw.TriangleGlyph{}},
	domain.PlaceStickyLRU:   {color.RGBA{86, 180, 233, 255}, 1.2, nil, draw.PyramidGlyph{}},
	domain.PlaceDelay:       {color.RGBA{204, 121, 167, 255}, 1.2, nil, draw.RingGlyph{}},
	domain.PlaceLeastLoaded: {color.RGBA{230, 159, 0, 255}, 1.2, nil, draw.BoxGlyph{}},
	domain.PlaceHash:        {color.RGBA{150, 130, 60, 255}, 0.8, []vg.Length{2, 2}, draw.TriangleGlyph{}},
	domain.PlaceRandom:      {color.RGBA{150, 150, 150, 255}, 0.8, []vg.Length{2, 2}, draw.RingGlyph{}},
	domain.PlaceRoundRobin:  {color.RGBA{190, 150, 190, 255}, 0.8, []vg.Length{2, 2}, draw.BoxGlyph{}},
}

// newPlot is an empty plot with a grid, and letters that every system has something like.
func newPlot(title, x, y string) *plot.Plot {
	plot.DefaultFont = font.Font{Typeface: "Liberation", Variant: "Sans"}
	p := plot.New()
	p.Title.Text, p.X.Label.Text, p.Y.Label.Text = title, x, y
	p.Title.Padding = 8
	// Left of the legend's text is its picture; to the right of it the text has
	// room, as fonts differ in width.
	p.Legend.Top, p.Legend.Left, p.Legend.XOffs, p.Legend.YOffs, p.Legend.Padding = true, true, 6.4*vg.Inch, -4, 4
	grid := plotter.NewGrid()
	grid.Horizontal.Color, grid.Vertical.Color = color.Gray{225}, color.Gray{240}
	p.Add(grid)
	return p
}

// series is a line with a name.
type series struct {
	name   string
	look   look
	points bool // drawn as well
	xy     plotter.XYs
}

// addSeries draws lines, the first above all others and first in the legend.
func addSeries(p *plot.Plot, all []series) error {
	drawn := make([][]plot.Thumbnailer, len(all))
	for i := len(all) - 1; i >= 0; i-- {
		s := &all[i]
		line, dots, err := plotter.NewLinePoints(s.xy)
		if err != nil {
			return fmt.Errorf("draw %s: %w", s.name, err)
		}
		line.Color, line.Width, line.Dashes = s.look.color, s.look.width, s.look.dashes
		p.Add(line)
		drawn[i] = []plot.Thumbnailer{line}
		if s.points {
			dots.Color, dots.Shape, dots.Radius = s.look.color, s.look.shape, 3
			p.Add(dots)
			drawn[i] = append(drawn[i], dots)
		}
	}
	for i := range all {
		p.Legend.Add(all[i].name, drawn[i]...)
	}
	return nil
}

// logTicks are at 1, 2 and 5 times the powers of ten, each with its number.
type logTicks struct{}

func (logTicks) Ticks(low, high float64) []plot.Tick {
	var ticks []plot.Tick
	for power := math.Floor(math.Log10(low)); power <= math.Log10(high); power++ {
		for _, times := range []float64{1, 2, 5} {
			if v := times * math.Pow(10, power); v >= low*0.999 && v <= high*1.001 {
				ticks = append(ticks, plot.Tick{Value: v, Label: strconv.FormatFloat(v, 'f', max(0, -int(power)), 64)})
			}
		}
	}
	return ticks
}

// ticksAt names the places on an axis.
func ticksAt(names []string) plot.ConstantTicks {
	var ticks plot.ConstantTicks
	for i, name := range names {
		ticks = append(ticks, plot.Tick{Value: float64(i), Label: name})
	}
	return ticks
}

// plotSettings draws a figure of all policies over the settings of a group.
func plotSettings(title string, all []outcome, f figure) (*plot.Plot, error) {
	p := newPlot(title, "", "seconds, "+f.name)
	names := make([]string, len(all))
	const least = 1.0 // second: a logarithmic scale has no zero
	for i := range all {
		names[i] = all[i].Name
		if f.of(all[i].by[domain.PlaceAllWarm]) < least {
			p.Y.Label.Text = "seconds, " + f.name + " (less than one is drawn as one)"
		}
	}
	var lines []series
	for _, v := range variants() {
		xy := make(plotter.XYs, len(all))
		for i := range all {
			xy[i] = plotter.XY{X: float64(i), Y: max(least, f.of(all[i].by[v.Name]))}
		}
		lines = append(lines, series{v.Name, looks[v.Name], true, xy})
	}
	if err := addSeries(p, lines); err != nil {
		return nil, err
	}
	p.Y.Scale, p.Y.Tick.Marker = plot.LogScale{}, logTicks{}
	p.X.Tick.Marker = ticksAt(names)
	p.X.Tick.Label.Rotation, p.X.Tick.Label.XAlign, p.X.Tick.Label.YAlign = -0.45, 0, -1
	p.X.Max = float64(len(all)-1) * 1.38 // room for the legend
	return p, nil
}

// plotTail draws how many waited for how long.
func plotTail(t *tail) (*plot.Plot, error) {
	p := newPlot("Requests whose time to first frame was at least so long: "+t.setting, "seconds", "share of the requests")
	var lines []series
	for _, c := range t.curves {
		xy := make(plotter.XYs, len(c.seconds))
		for i := range c.seconds {
			xy[i] = plotter.XY{X: c.seconds[i], Y: c.shares[i]}
		}
		if len(xy) > 0 {
			lines = append(lines, series{c.name, looks[c.name], false, xy})
		}
	}
	if err := addSeries(p, lines); err != nil {
		return nil, err
	}
	p.X.Scale, p.X.Tick.Marker = plot.LogScale{}, logTicks{}
	p.Y.Scale, p.Y.Tick.Marker = plot.LogScale{}, logTicks{}
	p.Legend.Top, p.Legend.XOffs, p.Legend.YOffs = false, 6, 4
	return p, nil
}

// plotScaling draws what waiting costs with each policy of scaling: a line for
// each time after which what is unused may go, where that makes a difference.
func plotScaling(f *scalingFindings) (*plot.Plot, error) {
	start := f.cases[0].start
	p := newPlot(fmt.Sprintf("Scaling: what waiting costs, starts of %s", start), "95th percentile of waiting, seconds", "resource-hours")
	colors := []string{domain.PlaceTTFF, domain.PlaceDelay, domain.PlaceWarmFirst, domain.PlaceStickyLRU, domain.PlaceHashBounded, domain.PlaceLeastLoaded, domain.PlaceHash}
	const least = 0.1 // second: a logarithmic scale has no zero
	var lines []series
	for _, policy := range []string{domain.ScalingForecast, domain.ScalingQueueTime, domain.ScalingBuffer, domain.ScalingDemand} {
		for _, idle := range scalingIdles {
			var xy plotter.XYs
			for _, one := range f.pointsOf(func(c *scalingCase) bool { return c.start == start && c.policy.Policy == policy && c.idle == idle }) {
				xy = append(xy, plotter.XY{X: max(least, one.wait), Y: one.cost / 3600})
			}
			if policy != domain.ScalingBuffer && idle != scalingIdles[len(scalingIdles)-1] {
				continue // the others decide by themselves what goes
			}
			name := policy
			if policy == domain.ScalingBuffer {
				name += ", idle " + idle.String()
			}
			lines = append(lines, series{name, looks[colors[len(lines)]], true, xy})
		}
	}
	if err := addSeries(p, lines); err != nil {
		return nil, err
	}
	p.X.Scale, p.X.Tick.Marker = plot.LogScale{}, logTicks{}
	p.Legend.XOffs = 5.6 * vg.Inch
	return p, nil
}

// save writes a plot as SVG. The text is text, in a font that is named, not drawn.
func save(p *plot.Plot, dir, name string) error {
	canvas := vgsvg.New(plotWidth, plotHeight)
	p.Draw(draw.Crop(draw.New(canvas), 10, -14, 10, -10))
	file, err := os.Create(filepath.Join(dir, name))
	if err != nil {
		return err
	}
	if _, err := canvas.WriteTo(file); err != nil {
		_ = file.Close()
		return fmt.Errorf("write %s: %w", name, err)
	}
	return file.Close()
}

// plots writes all plots and gives their names.
func plots(dir string, f *findings) ([]string, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	var names []string
	add := func(name string, p *plot.Plot, err error) error {
		if err != nil {
			return err
		}
		names = append(names, name)
		return save(p, dir, name)
	}
	for _, g := range groups {
		some := inGroup(f.outcomes, g.name)
		if len(some) == 0 || g.plot == "" {
			continue
		}
		p, err := plotSettings(g.title, some, byMean)
		if err := add(g.plot, p, err); err != nil {
			return nil, err
		}
	}
	p, err := plotTail(f.tail)
	if err := add("tail.svg", p, err); err != nil {
		return nil, err
	}
	if f.scaling != nil {
		p, err := plotScaling(f.scaling)
		if err := add("scaling.svg", p, err); err != nil {
			return nil, err
		}
	}
	return names, nil
}
