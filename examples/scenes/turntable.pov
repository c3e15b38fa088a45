// Three solids on a turntable, with a camera that goes around them once:
// clock runs from 0 to 1 over the frames of an animation, and is 0 for a still.
#version 3.7;
global_settings { assumed_gamma 1 max_trace_level 6 }

#declare Angle = 2 * pi * clock;

background { color rgb <0.55, 0.68, 0.85> }

camera {
  location <7.5 * sin(Angle), 3.6, -7.5 * cos(Angle)>
  look_at <0, 0.75, 0>
  right x * image_width / image_height
  angle 38
}

light_source { <6, 9, -5> color rgb <1.0, 0.95, 0.85> * 1.1 area_light x, z, 3, 3 adaptive 1 jitter }
light_source { <-8, 5, 4> color rgb <0.25, 0.3, 0.4> shadowless }

// The table.
cylinder {
  <0, -0.2, 0>, <0, 0, 0>, 3
  pigment { radial color_map { [0.5 color rgb 0.85] [0.5 color rgb <0.25, 0.3, 0.38>] } frequency 12 }
  finish { diffuse 0.75 reflection 0.08 }
}
plane { y, -0.2 pigment { color rgb <0.42, 0.45, 0.4> } finish { diffuse 0.7 } }

// A ball of metal, a cone and a ring.
sphere {
  <0, 0.9, -1.2>, 0.9
  pigment { color rgb <0.9, 0.55, 0.15> }
  finish { diffuse 0.5 specular 0.8 roughness 0.01 metallic reflection { 0.3 metallic } }
}
cone {
  <-1.3, 0, 0.9>, 0.85, <-1.3, 1.9, 0.9>, 0
  pigment { color rgb <0.15, 0.5, 0.75> }
  finish { diffuse 0.8 phong 0.5 }
}
torus {
  0.75, 0.26
  rotate x * 90
  translate <1.3, 1.01, 0.8>
  pigment { color rgb <0.75, 0.15, 0.25> }
  finish { diffuse 0.75 phong 0.9 phong_size 60 }
}
