package main

import "slices"

// matrix is a view of rows in a larger array: element (i, k) is at i*row + k*col.
type matrix struct {
	data     []float32
	row, col int
}

// rowsOf is a matrix of rows of the given length.
func rowsOf(data []float32, length int) matrix { return matrix{data, length, 1} }

// turned is the same matrix with rows and columns exchanged.
func (m matrix) turned() matrix { return matrix{m.data, m.col, m.row} }

// from is the part that begins at the given row and column.
func (m matrix) from(i, k int) matrix { return matrix{m.data[i*m.row+k*m.col:], m.row, m.col} }

// The part of a product that is done in registers.
const (
	tileRows    = 8
	tileColumns = 16
)

// multiplier has the space for products. It belongs to one goroutine.
type multiplier struct{ left, right []float32 }

// multiply sets c, or adds to it, the product of a (rows × depth) and b (depth × columns). The elements of a row of b
// and c lie side by side; rows is a multiple of 8, columns of 16. Both factors are copied into the order in which they
// are used: what lies at multiples of a large power of two throws each other out of the cache.
func (m *multiplier) multiply(c, a, b matrix, rows, depth, columns int, add bool) {
	m.left = slices.Grow(m.left[:0], rows*depth)[:rows*depth]
	m.right = slices.Grow(m.right[:0], tileColumns*depth)[:tileColumns*depth]
	for i := 0; i < rows; i += tileRows {
		to := m.left[i*depth : (i+tileRows)*depth]
		for k := range depth {
			for r := range tileRows {
				to[k*tileRows+r] = a.data[(i+r)*a.row+k*a.col]
			}
		}
	}
	for j := 0; j < columns; j += tileColumns {
		for k := range depth {
			*(*[tileColumns]float32)(m.right[k*tileColumns:]) = *(*[tileColumns]float32)(b.data[k*b.row+j:])
		}
		for i := 0; i < rows; i += tileRows {
			tile(c.data[i*c.row+j:], c.row, m.left[i*depth:], m.right, depth, add)
		}
	}
}

// transpose writes src (rows × columns) to dst with rows and columns exchanged.
func transpose(dst, src []float32, rows, columns int) {
	for i := range rows {
		for j := range columns {
			dst[j*rows+i] = src[i*columns+j]
		}
	}
}
