// Sparklines: a line without axes, of the last values.

const svg = 'http://www.w3.org/2000/svg'

export class Spark {
	/** points is how many values are as wide as the line. */
	constructor(points = 60) {
		this.points = points
		this.values = []
		this.element = document.createElementNS(svg, 'svg')
		this.element.setAttribute('class', 'spark')
		this.element.setAttribute('viewBox', `0 0 ${points - 1} 20`)
		this.element.setAttribute('preserveAspectRatio', 'none')
		this.element.setAttribute('aria-hidden', 'true')
		this.area = document.createElementNS(svg, 'path')
		this.area.setAttribute('class', 'area')
		this.line = document.createElementNS(svg, 'path')
		this.line.setAttribute('class', 'line')
		this.element.append(this.area, this.line)
	}

	add(value) {
		this.values.push(value)
		if (this.values.length > this.points) this.values.shift()
	}

	clear() {
		this.values = []
		this.draw()
	}

	draw() {
		const { values, points } = this
		if (values.length < 2) {
			this.line.setAttribute('d', '')
			this.area.setAttribute('d', '')
			return
		}
		const most = Math.max(1, ...values)
		const left = points - values.length // the newest is at the right edge
		const at = values.map((value, i) => `${left + i} ${(18.5 - (value / most) * 17).toFixed(1)}`)
		const path = 'M' + at.join('L')
		this.line.setAttribute('d', path)
		this.area.setAttribute('d', `${path}L${points - 1} 20L${left} 20Z`)
	}
}
