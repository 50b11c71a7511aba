class Stream
  def initialize(numbers)
    @numbers = numbers
  end

  def each
    @numbers.each do |n|
      yield "id: #{n}\ndata: {\"n\":#{n}}\n\n"
      sleep 0.1
    end
  end
end

run lambda { |env|
  numbers = env["PATH_INFO"] == "/finite" ? 1..5 : 1..Float::INFINITY
  [200, { "Content-Type" => "text/event-stream", "Cache-Control" => "no-cache" }, Stream.new(numbers)]
}
