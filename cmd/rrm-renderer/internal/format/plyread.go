package format

import (
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"strconv"
)

// plyReader reads number after number from the body of a PLY file.
type plyReader struct {
	file *plyFile
	body []byte
	at   int
}

func (r *plyReader) number(kind string) (float64, error) {
	if r.file.order == nil {
		return r.word()
	}
	n := plySizes[kind]
	if r.at+n > len(r.body) {
		return 0, io.ErrUnexpectedEOF
	}
	d := r.body[r.at : r.at+n]
	r.at += n
	return decodePLY(d, kind, r.file.order), nil
}

func decodePLY(d []byte, kind string, order binary.ByteOrder) float64 {
	switch kind {
	case "char", "int8":
		return float64(int8(d[0]))
	case "uchar", "uint8":
		return float64(d[0])
	case "short", "int16":
		return float64(int16(order.Uint16(d)))
	case "ushort", "uint16":
		return float64(order.Uint16(d))
	case "int", "int32":
		return float64(int32(order.Uint32(d)))
	case "uint", "uint32":
		return float64(order.Uint32(d))
	case "float", "float32":
		return float64(math.Float32frombits(order.Uint32(d)))
	}
	return math.Float64frombits(order.Uint64(d))
}

func (r *plyReader) word() (float64, error) {
	for r.at < len(r.body) && isSpace(r.body[r.at]) {
		r.at++
	}
	begin := r.at
	for r.at < len(r.body) && !isSpace(r.body[r.at]) {
		r.at++
	}
	if begin == r.at {
		return 0, io.ErrUnexpectedEOF
	}
	v, err := strconv.ParseFloat(string(r.body[begin:r.at]), 64)
	if err != nil {
		return 0, fmt.Errorf("%.40q is not a number", r.body[begin:r.at])
	}
	return v, nil
}

func isSpace(c byte) bool { return c == ' ' || c == '\n' || c == '\r' || c == '\t' }
